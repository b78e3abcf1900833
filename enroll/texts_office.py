"""What the office commands say: key -> (Chinese, English). `enroll.messages` chooses."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {
    # why the authority refuses (roster.refusal.Refusal)
    "refused_zone_unknown": (
        "没有组团 {zone};先用 `enroll zone add {zone}` 建立",
        "no zone {zone}; make it with `enroll zone add {zone}`",
    ),
    "refused_zone_exists": ("组团 {zone} 已存在", "zone {zone} is there already"),
    "refused_door_exists": (
        "组团 {zone} 里已有门 {door}",
        "zone {zone} has a door {door} already",
    ),
    "refused_door_unknown": (
        "组团 {zone} 里没有门 {door};先用 `enroll door add` 建立",
        "zone {zone} has no door {door}; make it with `enroll door add`",
    ),
    "refused_no_doors": (
        "房号 {unit} 没有门;至少用 --door 给出一个",
        "unit {unit} has no door; give at least one with --door",
    ),
    "refused_unit_exists": (
        "组团 {zone} 里已有房号 {unit}",
        "zone {zone} has a unit {unit} already",
    ),
    "refused_unit_unknown": (
        "组团 {zone} 里没有房号 {unit};先用 `enroll unit add` 建立",
        "zone {zone} has no unit {unit}; make it with `enroll unit add`",
    ),
    "refused_name": (
        "{name} 不能作 {what} 的名称:只用字母、数字、点、横线、下划线,首字符为字母或数字,最多 64",
        "{name} cannot be the name of a {what}: letters, digits, dot, dash and underscore, "
        "a letter or digit first, at most 64",
    ),
    "refused_tenancy_exists": (
        "租约 {tenancy} 已存在;每份租约用新的编号",
        "tenancy {tenancy} is there already; give every tenancy a number of its own",
    ),
    "refused_tenancy_unknown": ("没有这份租约", "there is no such tenancy in this zone"),
    "refused_tenancy_ended": ("这份租约已经结束", "this tenancy has ended"),
    "refused_tenancy_open": ("这份租约还没有结束", "this tenancy has not ended"),
    "refused_tenancy_term": (
        "租约的结束时间必须晚于开始时间",
        "a tenancy must end after it starts",
    ),
    "refused_household": (
        "同住人数必须在 1 到 {limit} 之间",
        "the household must be 1 to {limit} persons",
    ),
    "refused_household_full": (
        "这份租约登记的同住人数已满",
        "everybody this tenancy registers is enrolled already",
    ),
    "refused_already_enrolled": (
        "此人在这份租约下已经登记",
        "this person is already enrolled under this tenancy",
    ),
    "refused_authority_ref": (
        "撤销必须写明依据(1 到 200 个字符)",
        "a revocation must name its basis, 1 to 200 characters",
    ),
    "refused_by": ("`by` 最多 {limit} 个字符", "--by can have {limit} characters at most"),
    "refused_label": (
        "{what} 编号 {label} 不可用:一行,1 到 64 个字符,首尾不能有空格",
        "{label} cannot be the number of a {what}: one line of 1 to 64 characters, "
        "no space at its ends",
    ),
    "refused_wrong_zone": (
        "不在它的组团之内",
        "that zone is not one of its zones",
    ),
    "refused_wrong_key": (
        "组团密钥的版本不对;请先同步",
        "sealed under another key epoch; run `enroll desk sync`",
    ),
    "refused_unreadable": (
        "无法解读:密钥不对或内容被改动",
        "it does not open: another key, or altered on the way",
    ),
    "refused_pseudonym": (
        "化名与编号不符;请先同步",
        "the pseudonym does not belong to the id; run `enroll desk sync`",
    ),
    "refused_consent_basis": (
        "同意的依据不被认可;用 separate_written、separate_electronic 或 guardian",
        "not a basis of consent; use separate_written, separate_electronic or guardian",
    ),
    "refused_consent_guardian": (
        "监护人同意必须写明监护人",
        "consent by a guardian must name the guardian",
    ),
    "refused_consent_transfer": (
        "没有单独同意将人脸信息传到门禁设备,因此不能登记",
        "without separate consent to send the template to the gates nobody can be enrolled",
    ),
    "refused_template_old": (
        "模板版本比已有的旧;请先同步",
        "the template's version is older than the one the gates hold",
    ),
    "refused_too_large": (
        "登记内容太大;请减少照片数量",
        "the enrolment is too large for the log; enrol fewer photos",
    ),
    "refused_request_reused": (
        "请求编号已被另一次登记使用",
        "this request number belongs to another enrolment",
    ),
    "refused_second_kcv": (
        "组团 {zone} 的这个密钥版本已有另一把密钥;请报告",
        "zone {zone} has another key of this epoch already; report this",
    ),
    "refused_not_a_member": (
        "{member} 不是该组团的登记设备",
        "{member} is not a member of that zone",
    ),
    "refused_bad_key_message": (
        "给 {member} 的密钥消息无效({why})",
        "the key message for {member} is not valid ({why})",
    ),
    "refused_broken_chain": (
        "{gate} 的事件链在第 {event_no} 条断裂;请报告",
        "the audit chain of {gate} breaks at event {event_no}; report this",
    ),
    # what the commands report
    "office_made": ("中心已建立:{home}", "office made: {home}"),
    "office_root_offline": (
        "根密钥在 {root}:请移到离线介质并从本机删除;只有更换密钥时才需要它",
        "the root key is in {root}: move it to an offline medium and off this machine; "
        "it is needed only to change keys",
    ),
    "office_broker": (
        "用本用户启动消息服务器:mosquitto -c {conf};换用户或换机器见该文件开头",
        "start the broker as this user: mosquitto -c {conf}; "
        "for another user or machine see the top of that file",
    ),
    "bad_broker": (
        "{text} 不是 主机:端口,例如 broker.estate.lan:8883",
        "{text} is not HOST:PORT, for example broker.estate.lan:8883",
    ),
    "bad_date": (
        "{text} 不是日期,例如 2027-09-01 或 2027-09-01T12:00",
        "{text} is not a date, for example 2027-09-01 or 2027-09-01T12:00",
    ),
    "zone_added": ("已建立组团 {zone}", "zone {zone} made"),
    "door_added": ("组团 {zone} 已加入门 {door}", "door {door} added to zone {zone}"),
    "unit_added": ("组团 {zone} 已加入房号 {unit}", "unit {unit} added to zone {zone}"),
    "tenancy_added": ("已录入租约 {tenancy}", "tenancy {tenancy} entered"),
    "tenancy_ended": (
        "租约 {tenancy} 已结束,撤销了 {people} 人的权限",
        "tenancy {tenancy} has ended; persons whose rights it took: {people}",
    ),
    "member_added": (
        "{member} 已加入组团 {zones};把 {out} 带到该设备",
        "{member} is let into {zones}; take {out} to it",
    ),
    "compare_fingerprint": (
        "请与设备上显示的指纹核对:{fingerprint};不一致就不要交付文件",
        "compare with the fingerprint shown at the box: {fingerprint}; "
        "if it differs, do not hand over the file",
    ),
    "fingerprint_differs": (
        "指纹不一致:该请求的指纹是 {seen};未加入任何设备,请核实请求从哪里来",
        "the fingerprint differs: this request has {seen}; nothing was let in, "
        "find out where the request comes from",
    ),
    "wrong_role": (
        "{path} 是 {role} 的请求;请用 `enroll {role} add`",
        "{path} is the request of a {role}; use `enroll {role} add`",
    ),
    "no_folder": (
        "没有文件夹 {folder};先建立它,或另选 --out",
        "no folder {folder}; make it, or choose another --out",
    ),
    "no_zones": ("还没有组团", "no zones yet"),
    "no_doors": ("还没有门", "no doors yet"),
    "no_units": ("还没有房号", "no units yet"),
    "no_tenancies": ("还没有租约", "no tenancies yet"),
    "no_gates": ("还没有门禁设备", "no gates yet"),
    "no_desks": ("还没有登记台", "no desks yet"),
}
