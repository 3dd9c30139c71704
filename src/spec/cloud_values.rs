//! The forms that AWS gives to its names, and what is said when a value does not have them.

use super::values::{Fault, host_name};

/// Characters of a tag's key (AWS General Reference, "Tag naming limits and requirements").
const TAG_KEY_CHARACTERS: usize = 128;

/// Characters of a tag's value, from the same page.
const TAG_VALUE_CHARACTERS: usize = 256;

/// Characters of a bucket's name (Amazon S3 User Guide, "General purpose bucket naming rules").
const BUCKET_CHARACTERS: std::ops::RangeInclusive<usize> = 3..=63;

/// Characters of a state key's beginning: S3 takes keys of 1,024 bytes, and edge and topology follow.
const PREFIX_CHARACTERS: usize = 256;

/// Checks `text` against a format of AWS that the schema names. Unknown formats pass.
pub(crate) fn check_format(format: &str, text: &str) -> Result<(), Fault> {
    match format {
        "image-id" => id(text, "ami", "image"),
        "vpc-id" => id(text, "vpc", "VPC"),
        "subnet-id" => id(text, "subnet", "subnet"),
        "bucket-name" => bucket(text),
        "key-prefix" => prefix(text),
        "tag-key" => tag_key(text),
        "tag-value" => tag_text(text, "value", TAG_VALUE_CHARACTERS),
        "email" => email(text),
        "https-url" => https(text),
        "slack-workspace" => slack(text, &['T', 'E'], "workspace"),
        "slack-channel" => slack(text, &['C', 'G'], "channel"),
        _ => Ok(()),
    }
}

/// `KIND-` and 8 or 17 hexadecimal digits (Amazon EC2 User Guide, "Resource IDs").
fn id(text: &str, kind: &str, what: &str) -> Result<(), Fault> {
    let digits = text.strip_prefix(kind).and_then(|rest| rest.strip_prefix('-'));
    let sound = digits.is_some_and(|digits| {
        matches!(digits.len(), 8 | 17) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    if sound {
        return Ok(());
    }
    Err(Fault::new(
        format!("`{text}` is no id of {} {what}", if what == "image" { "an" } else { "a" }),
        format!("write {kind}- and 17 hexadecimal digits, as the console shows it"),
    ))
}

fn bucket(text: &str) -> Result<(), Fault> {
    let help = "write the bucket's name, such as example-terraform-state";
    if let Some(name) = text.strip_prefix("s3://") {
        let name = name.split('/').next().unwrap_or_default();
        return Err(Fault::new(
            "a bucket's name has no scheme (`s3://`)",
            format!("write {name}, and what follows it as `prefix`"),
        ));
    }
    if !BUCKET_CHARACTERS.contains(&text.len()) {
        return Err(Fault::new(format!("`{text}` has {} characters; a bucket's name has 3 to 63", text.len()), help));
    }
    if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.')) {
        let reason = format!("`{text}` contains {bad:?}; a bucket's name has a-z, 0-9, hyphen and dot alone");
        return Err(Fault::new(reason, help));
    }
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(ends) || !text.ends_with(ends) || text.contains("..") {
        return Err(Fault::new(format!("`{text}` begins or ends with a hyphen or dot, or has two dots"), help));
    }
    Ok(())
}

fn prefix(text: &str) -> Result<(), Fault> {
    if text.starts_with('/') || text.ends_with('/') {
        let help = format!("write {}", text.trim_matches('/'));
        return Err(Fault::new(
            format!("`{text}` begins or ends with a slash, which S3 takes for a part of the key"),
            help,
        ));
    }
    let bad = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_./".contains(*c));
    if text.len() > PREFIX_CHARACTERS || bad.is_some() {
        let reason = match bad {
            Some(bad) => format!("`{text}` contains {bad:?}"),
            None => format!("the prefix has {} characters", text.len()),
        };
        return Err(Fault::new(
            reason,
            format!("write up to {PREFIX_CHARACTERS} letters, digits, hyphens, dots and slashes"),
        ));
    }
    Ok(())
}

fn tag_key(text: &str) -> Result<(), Fault> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("aws:") {
        return Err(Fault::new(
            format!("`{text}` begins with `aws:`, which AWS keeps for itself"),
            "choose another key",
        ));
    }
    if lower.starts_with("sipedge:") || text == "Name" {
        return Err(Fault::new(format!("sipedge sets the tag `{text}` itself"), "choose another key"));
    }
    // Keys are shown to instances in their metadata (Amazon EC2 User Guide, "Tags in instance metadata").
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"+-=.,_:@".contains(*c)) {
        let reason = format!("`{text}` contains {bad:?}: AWS launches no instance with such a key in its metadata");
        return Err(Fault::new(reason, "write letters, digits and + - = . , _ : @ alone"));
    }
    tag_text(text, "key", TAG_KEY_CHARACTERS)
}

/// Letters, digits, space and `+ - = . , _ : / @`.
fn tag_text(text: &str, what: &str, most: usize) -> Result<(), Fault> {
    let count = text.chars().count();
    if count > most {
        return Err(Fault::new(format!("the {what} of a tag has {count} characters; AWS takes {most}"), "shorten it"));
    }
    match text.chars().find(|c| !c.is_alphanumeric() && !" +-=.,_:/@".contains(*c)) {
        Some(bad) => Err(Fault::new(
            format!("`{text}` contains {bad:?}, which AWS refuses in the {what} of a tag"),
            "write letters, digits, spaces and + - = . , _ : / @ alone",
        )),
        None => Ok(()),
    }
}

fn email(text: &str) -> Result<(), Fault> {
    let sound = text.split_once('@').is_some_and(|(user, host)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
        !user.is_empty() && user.chars().all(plain) && host.contains('.') && host_name(host).is_ok()
    });
    if sound {
        return Ok(());
    }
    Err(Fault::new(format!("`{text}` is no mail address"), "write an address such as noc@example.com"))
}

fn https(text: &str) -> Result<(), Fault> {
    let help = "write a URL such as https://events.pagerduty.com/integration/KEY/enqueue";
    let Some(rest) = text.strip_prefix("https://") else {
        return Err(Fault::new(format!("`{text}` is no https URL"), help));
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    if host.contains('@') || host_name(name).is_err() {
        return Err(Fault::new(format!("`{text}` has no host name after https://"), help));
    }
    match text.chars().find(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        Some(bad) => Err(Fault::new(format!("`{text}` contains {bad:?}"), help)),
        None => Ok(()),
    }
}

fn slack(text: &str, first: &[char], what: &str) -> Result<(), Fault> {
    let sound = text.strip_prefix(first).is_some_and(|rest| {
        (6..=14).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    });
    if sound {
        return Ok(());
    }
    let letter = first.first().copied().unwrap_or('C');
    Err(Fault::new(
        format!("`{text}` is no id of a Slack {what}"),
        format!(
            "write the id that Slack shows in its link, such as {letter}07EXAMPLE1; a name such as #noc does not do"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_aws() {
        for (format, good, bad) in [
            (
                "image-id",
                vec!["ami-0123456789abcdef0", "ami-01234567"],
                vec!["ami-1", "ami_01234567", "img-01234567", "ami-0123456G"],
            ),
            ("vpc-id", vec!["vpc-0123456789abcdef0"], vec!["subnet-0123456789abcdef0", ""]),
            ("subnet-id", vec!["subnet-0123456789abcdef0"], vec!["vpc-0123456789abcdef0"]),
            ("bucket-name", vec!["abc", "a.b-c1"], vec!["ab", "A-b", "a_b", "-ab", "ab-", "a..b", "s3://abc/d"]),
            ("key-prefix", vec!["sipedge", "a/b.c-d_e"], vec!["/a", "a/", "a b"]),
            (
                "tag-key",
                vec!["team", "cost-center", "a:b"],
                vec!["aws:x", "AWS:x", "sipedge:edge", "Name", "a*b", "a b", "a/b"],
            ),
            ("tag-value", vec!["sip", "a@b.c"], vec!["a;b"]),
            ("email", vec!["a@b.c", "a+b@example.com"], vec!["a", "a@b", "@b.c", "a b@c.de", "a@b@c.de"]),
            (
                "https-url",
                vec!["https://a.b/c", "https://a.b:8443/c?d=e"],
                vec!["http://a.b", "https://", "https://a b", "https://u@a.b"],
            ),
            ("slack-workspace", vec!["T07EXAMPLE1"], vec!["C07EXAMPLE1", "T07", "#noc"]),
            ("slack-channel", vec!["C07EXAMPLE1"], vec!["#noc", "c07example1"]),
        ] {
            for text in good {
                assert_eq!(check_format(format, text), Ok(()), "{format} {text}");
            }
            for text in bad {
                assert!(check_format(format, text).is_err(), "{format} {text}");
            }
        }
        assert!(check_format("tag-key", &"k".repeat(129)).is_err());
        assert!(check_format("tag-value", &"v".repeat(257)).is_err());
    }
}
