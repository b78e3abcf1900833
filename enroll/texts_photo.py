"""What staff read about photos and consent: key -> (Chinese, English)."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {
    "photo_unread": (
        "{photo}:无法读取({why});请给出照片文件的路径",
        "{photo}: {why}; give the path of the photo",
    ),
    "photo_not_one": (
        "{photo}:不是可读的照片;请用 JPEG 或 PNG",
        "{photo}: not a photo that can be read; use a JPEG or PNG",
    ),
    "photo_too_large": (
        "{photo}:照片太大;请缩小后再试",
        "{photo}: the photo is too large; scale it down",
    ),
    "photo_no_face": (
        "{photo}:没有找到人脸;请正对镜头、光线充足地重拍",
        "{photo}: no face found; take another, looking into the camera in good light",
    ),
    "photo_several_faces": (
        "{photo}:照片里有 {count} 张人脸;请单独拍摄,或确认要登记的是最大的一张后加 --largest",
        "{photo}: {count} faces in the photo; photograph the person alone, or give --largest if "
        "the largest is meant",
    ),
    "photo_too_small": (
        "{photo}:人脸太小({px} 像素,至少 {least});请靠近重拍",
        "{photo}: the face is {px} px wide, it needs {least}; go closer and take another",
    ),
    "photo_too_dark": (
        "{photo}:人脸太暗;请在光线充足处重拍",
        "{photo}: the face is too dark; take another in better light",
    ),
    "photo_too_bright": (
        "{photo}:人脸曝光过度;请避开直射光重拍",
        "{photo}: the face is burnt out; take another without direct light",
    ),
    "photo_blurred": (
        "{photo}:人脸模糊;请拿稳相机重拍",
        "{photo}: the face is blurred; hold the camera still and take another",
    ),
    "photo_unusable": (
        "{photo}:无法使用({why});请换一张照片",
        "{photo}: cannot be used ({why}); take another photo",
    ),
    "consent_basis": (
        "{basis} 不是同意的依据;可用:{bases}",
        "{basis} is not a basis of consent; use one of {bases}",
    ),
    "consent_needs_guardian": (
        "监护人同意(未满十四周岁)必须用 --guardian 写明监护人姓名",
        "consent by a guardian (under 14) must name the guardian; give --guardian NAME",
    ),
    "consent_guardian_basis": (
        "只有 --consent guardian 才能写监护人",
        "--guardian goes with --consent guardian only",
    ),
    "consent_needs_transfer": (
        "没有本人单独同意把人脸模板发送到门禁设备,不能登记;已取得同意时加 --transfer",
        "nobody is enrolled without separate consent to send the template to the gates; when you "
        "have it, give --transfer",
    ),
    "consent_field": (
        "同意记录的 {field} 必须是 1 到 {limit} 个字符",
        "{field} of the consent must have 1 to {limit} characters",
    ),
}
