"""What serve, desk, photo and revocation say: key -> (Chinese, English)."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {
    # serve
    "serving": (
        "正在服务:{zones} 个组团,消息服务器 {host}:{port}",
        "serving {zones} zones through {host}:{port}",
    ),
    "serve_twice": (
        "{home}:已有一个 `roster serve` 在运行;先停止它",
        "{home}: a `roster serve` is running here already; stop it first",
    ),
    "plain_protocol": (
        "明文的内置消息服务器只支持 --protocol 3.1.1,且不支持共享订阅;去掉这些选项",
        "the plain embedded broker speaks 3.1.1 only, no shared group; leave the options out",
    ),
    # the desk
    "no_desk": (
        "{folder}:这里没有登记台;先用 `enroll desk init --id 名称 --desk {folder}` 建立",
        "{folder}: no desk here; make one with `enroll desk init --id NAME --desk {folder}`",
    ),
    "desk_is_another": (
        "{folder}:这里是登记台 {desk};另选文件夹",
        "{folder}: this is desk {desk}; choose another folder",
    ),
    "desk_request": (
        "登记台 {desk} 的申请已写入 {path};指纹 {fingerprint}",
        "request of desk {desk} written to {path}; fingerprint {fingerprint}",
    ),
    "desk_papers_damaged": (
        "{path}:已损坏;请从备份恢复",
        "{path}: damaged; restore it from the backup",
    ),
    "desk_bundle_of_another": (
        "该文件属于 {role} {member},不是本登记台",
        "the bundle is for {role} {member}, not for this desk",
    ),
    "desk_bundle_old": (
        "该文件回应的是另一份申请;用 `enroll desk init` 重新申请",
        "the bundle answers another request; make a new one with `enroll desk init`",
    ),
    "desk_bundle_false": (
        "该文件验证不通过({why});请向中心重新索取",
        "the bundle does not verify ({why}); ask the office for it again",
    ),
    "desk_other_office": (
        "{folder}:本登记台属于另一个中心;请用新的文件夹",
        "{folder}: this desk belongs to another office; use a new folder",
    ),
    "desk_not_joined": (
        "登记台 {desk} 还没有加入;先运行 `enroll desk join --bundle 文件`",
        "desk {desk} has not joined; run `enroll desk join --bundle FILE` first",
    ),
    "desk_joined": (
        "登记台 {desk} 已加入;接着运行 `enroll desk sync`",
        "desk {desk} has joined; next: enroll desk sync",
    ),
    "desk_busy": (
        "{folder}:另一条命令正在使用本登记台;请稍后再试",
        "{folder}: another command is using this desk; try again shortly",
    ),
    "desk_struck": (
        "登记台 {desk} 已被中心除名;请询问中心",
        "the office does not list desk {desk} any more; ask the office",
    ),
    "desk_no_zone_key": (
        "中心没有给出组团 {zone} 的密钥;先运行 `enroll desk sync`",
        "the office gave no keys for zone {zone}; run `enroll desk sync`",
    ),
    "desk_second": (
        "组团 {zone} 的人脸密钥由登记台 {other} 保管;第二个登记台的密钥交接尚未实现",
        "desk {other} keeps the face key of zone {zone}; handing it to a second desk is not built",
    ),
    "desk_synced": (
        "已同步;组团 {zones};新建人脸密钥 {made} 个;发给门禁设备 {wrapped} 个",
        "synced; zones {zones}; face keys made: {made}; sent to gates: {wrapped}",
    ),
    "broker_away": (
        "连不上消息服务器 {host}:{port};检查网络,以及服务器是否在运行",
        "broker {host}:{port} is not reached; check the network, and that the broker runs",
    ),
    "broker_lost": (
        "与消息服务器的连接断了;请再试一次",
        "the connection to the broker was lost; try again",
    ),
    "office_silent": (
        "中心在 {seconds} 秒内没有回应({what});检查 `enroll roster serve` 是否在运行"
        "(丢弃的消息:{seen})",
        "no answer from the office within {seconds} s ({what}); check that `enroll roster serve` "
        "runs (messages dropped: {seen})",
    ),
    "office_refuses": ("中心拒绝:{reason}", "the office refuses: {reason}"),
    "refused_not_built": ("尚未实现", "not built yet"),
    # person
    "zone_needed": (
        "本登记台负责多个组团({zones});用 --zone 指明",
        "this desk has several zones ({zones}); name one with --zone",
    ),
    "zone_not_ours": (
        "组团 {zone} 不属于本登记台({zones})",
        "zone {zone} is not one of this desk's ({zones})",
    ),
    "person_id": (
        "编号须为一行,1 到 64 个字符",
        "--id must be one line of 1 to 64 characters",
    ),
    "person_added": (
        "已登记;门禁设备几秒内即可识别",
        "enrolled; the gates know the face within seconds",
    ),
    "no_people": ("还没有登记任何人", "nobody is enrolled yet"),
    # consent
    "consent_needed": (
        "没有单独同意就不能登记:用 --consent 写明依据(separate_written、separate_electronic "
        "或 guardian)",
        "nobody is enrolled without separate consent: name its basis with --consent "
        "(separate_written, separate_electronic or guardian)",
    ),
    "consent_guardian": (
        "监护人同意须用 --guardian 写明监护人(未满 14 周岁者必须)",
        "consent by a guardian needs --guardian NAME (always so under 14 years)",
    ),
    "consent_no_guardian": (
        "--guardian 只与 --consent guardian 一起使用",
        "--guardian goes with --consent guardian only",
    ),
    "consent_transfer": (
        "人脸模板要传到门禁设备,须有本人对此的单独同意:确认后加 --transfer",
        "the template is sent to the gates, which needs the person's separate consent: "
        "with it, add --transfer",
    ),
    "consent_field": (
        "同意记录:{field} 须为 1 到 {limit} 个字符",
        "consent record: {field} must have 1 to {limit} characters",
    ),
    # photo
    "photo_unreadable": (
        "{path}:不是可读的照片;用 JPEG 或 PNG",
        "{path}: not a photo that can be read; use JPEG or PNG",
    ),
    "photo_too_large": (
        "{path}:文件太大(上限 {limit} MB);请缩小",
        "{path}: too large a file (at most {limit} MB); make it smaller",
    ),
    "photo_shape": (
        "{path}:照片太小或太窄长;请用普通人像照",
        "{path}: too small or too long and thin; use an ordinary portrait",
    ),
    "photo_no_face": (
        "{path}:没有找到人脸;请正面、光线充足地重拍",
        "{path}: no face found; take it again, facing the camera, in good light",
    ),
    "photo_many_faces": (
        "{path}:有 {count} 张人脸;请单独拍摄,或用 --largest 取最大的一张",
        "{path}: {count} faces; photograph one person, or take the largest with --largest",
    ),
    "photo_small": (
        "{path}:人脸只有 {side} 像素(至少 {limit});请靠近拍摄",
        "{path}: the face is only {side} px (at least {limit}); come closer",
    ),
    "photo_blurred": (
        "{path}:人脸模糊;请稳住相机重拍",
        "{path}: the face is blurred; hold still and take it again",
    ),
    "photo_dark": (
        "{path}:人脸太暗;请增加光线重拍",
        "{path}: the face is too dark; take it again with more light",
    ),
    "photo_bright": (
        "{path}:人脸过曝;请减少光线重拍",
        "{path}: the face is overexposed; take it again with less light",
    ),
    "photo_flat": (
        "{path}:人脸几乎没有明暗;请换光线重拍",
        "{path}: the face has hardly any contrast; take it again in other light",
    ),
    "not_face_pack": (
        "{path}:不是人脸模型包;用 --models 指明",
        "{path}: not a pack of face models; name one with --models",
    ),
    # revocation, status, events
    "revoked": (
        "租约 {tenancy} 已撤销({people} 人);{enforced}/{total} 台设备已执行",
        "tenancy {tenancy} revoked ({people} persons); enforced by {enforced} of {total} gates",
    ),
    "revoked_times": (
        "第一台 {first} 毫秒,最后一台 {last} 毫秒",
        "first gate after {first} ms, last after {last} ms",
    ),
    "revoke_missing": (
        "{seconds} 秒内没有回执:{gates};`enroll roster serve` 会继续发送,用同一命令可继续等待",
        "no receipt within {seconds} s from: {gates}; `enroll roster serve` goes on telling them, "
        "the same command waits again",
    ),
    "no_status": ("没有组团,或组团里没有门禁设备", "no zones, or no gates in them"),
    "no_events": ("还没有事件", "no events yet"),
}
