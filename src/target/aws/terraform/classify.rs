//! From Terraform's words and AWS's error codes to a reason that has a way on.
//!
//! The texts are those of Terraform 1.9 to 1.12, OpenTofu 1.9 and 1.10, the AWS provider 5 and 6 and AWS SDK for Go v2; the codes are
//! those of AWS's API references. What is not known stays [`Kind::Other`] and is shown verbatim.

use super::{Diagnostic, Kind};

pub(super) fn classify(diagnostics: &[Diagnostic], tail: &[String]) -> Kind {
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&diagnostic.text());
        text.push('\n');
    }
    if diagnostics.is_empty() {
        text = tail.join("\n");
    }
    // A terminal's width breaks lines anywhere between words.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    locked(&text).or_else(|| known(&flat)).unwrap_or(Kind::Other)
}

/// Phrases, each with what it means; the first that fits counts, so the more exact ones come first.
fn known(text: &str) -> Option<Kind> {
    let has = |phrase: &str| text.contains(phrase);
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| has(phrase));
    if any(&[
        "SSO session has expired",
        "refresh cached SSO token failed",
        "SSO session token",
        "sso session has expired",
        "failed to read cached SSO token",
    ]) {
        return Some(Kind::SsoExpired);
    }
    if any(&["failed to get shared config profile", "The config profile"]) {
        return Some(Kind::NoProfile);
    }
    if any(&[
        "Invalid AWS Region",
        "invalid AWS Region",
        "OptInRequired",
        "is not a valid AWS Region",
        "not enabled in region",
    ]) {
        return Some(Kind::Region);
    }
    if any(&[
        "No valid credential sources found",
        "no EC2 IMDS role found",
        "static credentials are empty",
        "get credentials",
    ]) {
        return Some(Kind::NoCredentials);
    }
    if has("NoSuchBucket") || (has("S3 bucket") && has("does not exist")) {
        return Some(Kind::NoBucket);
    }
    if let Some(code) = REFUSED.iter().find(|code| has(code)) {
        return Some(Kind::CredentialsRefused { code: (*code).to_owned() });
    }
    if let Some((code, what)) = QUOTAS.iter().find(|(code, _)| has(code)) {
        return Some(Kind::Quota { code: (*code).to_owned(), what });
    }
    if let Some(code) = CLASHES.iter().find(|code| has(code)) {
        return Some(Kind::NameClash { code: (*code).to_owned() });
    }
    if any(&["UnauthorizedOperation", "AccessDenied", "is not authorized to perform"]) {
        return Some(Kind::NotAllowed { action: after(text, "is not authorized to perform: ") });
    }
    if any(&["which is newer than current", "created by Terraform", "state snapshot was created by"]) {
        return Some(Kind::StateNewer);
    }
    if any(&[
        "Failed to load state",
        "Error loading state",
        "Unsupported state file format",
        "Failed to read state",
        "state data",
        "Error refreshing state",
    ]) && !any(UNREACHABLE)
    {
        return Some(Kind::StateUnreadable);
    }
    let provider = any(&[
        "Failed to query available provider packages",
        "Failed to install provider",
        "Required plugins are not installed",
        "Missing required provider",
        "Inconsistent dependency lock file",
    ]);
    let unreachable = any(UNREACHABLE);
    if provider && !unreachable {
        return Some(Kind::ProviderMissing);
    }
    if unreachable {
        return Some(Kind::NoNetwork { host: host(text) });
    }
    if any(&["operation was canceled", "execution halted", "Execution halted", "context canceled"]) {
        return Some(Kind::Interrupted);
    }
    None
}

/// Codes for credentials that AWS does not take (AWS, "Common errors").
const REFUSED: [&str; 8] = [
    "ExpiredTokenException",
    "ExpiredToken",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "AuthFailure",
];

/// Codes for a quota that is used up, and of what (the API references of EC2, Elastic Load Balancing, Auto Scaling, IAM, SNS and SSM).
const QUOTAS: [(&str, &str); 15] = [
    ("AddressLimitExceeded", "Elastic IP addresses"),
    ("VpcLimitExceeded", "VPCs"),
    ("SubnetLimitExceeded", "subnets in a VPC"),
    ("InternetGatewayLimitExceeded", "Internet gateways"),
    ("NatGatewayLimitExceeded", "NAT gateways"),
    ("RouteTableLimitExceeded", "route tables in a VPC"),
    ("SecurityGroupLimitExceeded", "security groups"),
    ("RulesPerSecurityGroupLimitExceeded", "rules in a security group"),
    ("VcpuLimitExceeded", "vCPUs of this instance family"),
    ("InstanceLimitExceeded", "instances"),
    ("TooManyLoadBalancers", "network load balancers"),
    ("TooManyTargetGroups", "target groups"),
    ("TooManyListeners", "listeners"),
    ("LaunchTemplateLimitExceeded", "launch templates"),
    ("LimitExceeded", "of these resources"),
];

/// Codes for a name that is taken.
const CLASHES: [&str; 10] = [
    "EntityAlreadyExists",
    "DuplicateLoadBalancerName",
    "DuplicateTargetGroupName",
    "AlreadyExistsException",
    "AlreadyExistsFault",
    "InvalidGroup.Duplicate",
    "ParameterAlreadyExists",
    "ResourceAlreadyExists",
    "already exists",
    "AlreadyExists",
];

/// What resolvers, sockets and proxies say.
const UNREACHABLE: &[&str] = &[
    "no such host",
    "could not connect to",
    "dial tcp",
    "i/o timeout",
    "connection refused",
    "network is unreachable",
    "TLS handshake timeout",
    "x509:",
    "request send failed",
    "Client.Timeout exceeded",
];

/// The lock's note in the text (Terraform, "State: Locking").
fn locked(text: &str) -> Option<Kind> {
    if !text.contains("Error acquiring the state lock") {
        return None;
    }
    let field = |name: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    Some(Kind::StateLocked {
        id: field("ID")?,
        who: or_unknown(field("Who")),
        operation: or_unknown(field("Operation")),
        created: or_unknown(field("Created")),
    })
}

/// The word behind a phrase.
fn after(text: &str, phrase: &str) -> Option<String> {
    let rest = text.split_once(phrase)?.1;
    let word = rest.split_whitespace().next()?.trim_matches(|letter: char| !letter.is_alphanumeric());
    Some(word.to_owned())
}

/// The host that the text says cannot be reached.
fn host(text: &str) -> Option<String> {
    let named =
        after(text, "could not connect to ").or_else(|| after(text, "lookup ")).or_else(|| after(text, "dial tcp "))?;
    let named = named.split(['/', '"']).next()?.trim_end_matches(':');
    (named.contains('.') || named.contains(':')).then(|| named.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(summary: &str, detail: &str) -> Kind {
        let diagnostic = Diagnostic { summary: summary.to_owned(), detail: detail.to_owned(), address: None };
        classify(&[diagnostic], &[])
    }

    #[test]
    fn what_aws_and_terraform_say_has_a_way_on() {
        let quota = "operation error EC2: AllocateAddress, https response error StatusCode: 400, RequestID: 1, api error \
                     AddressLimitExceeded: The maximum number of addresses has been reached.";
        assert_eq!(
            of("creating EC2 EIP", quota),
            Kind::Quota { code: "AddressLimitExceeded".into(), what: "Elastic IP addresses" }
        );
        let denied = "api error UnauthorizedOperation: You are not authorized to perform this operation. User: arn:aws:iam::1:user/x is \
                      not authorized to perform: ec2:CreateVpc on resource: arn:aws:ec2:us-east-1:1:vpc/*";
        assert_eq!(of("creating EC2 VPC", denied), Kind::NotAllowed { action: Some("ec2:CreateVpc".into()) });
        let registry = "Could not retrieve the list of available versions for provider hashicorp/aws: could not connect to \
                        registry.terraform.io: failed to request discovery document";
        let kind = of("Failed to query available provider packages", registry);
        assert_eq!(kind, Kind::NoNetwork { host: Some("registry.terraform.io".into()) });
        let mirror = "Could not retrieve the list of available versions for provider hashicorp/aws: provider \
                      registry.terraform.io/hashicorp/aws was not found in any of the search locations";
        assert_eq!(of("Failed to query available provider packages", mirror), Kind::ProviderMissing);
        let sso = "failed to refresh cached credentials, refresh cached SSO token failed, unable to refresh SSO token";
        assert_eq!(of("No valid credential sources found", sso), Kind::SsoExpired);
        assert_eq!(of("Invalid AWS Region: us-est-1", ""), Kind::Region);
        assert_eq!(
            of("creating IAM Role (x)", "api error EntityAlreadyExists: Role with name x already exists."),
            Kind::NameClash { code: "EntityAlreadyExists".into() }
        );
        assert_eq!(of("Invalid value for variable", "zones must not be empty"), Kind::Other);
    }

    #[test]
    fn a_lock_says_who_has_it() {
        let detail = "Error message: resource temporarily unavailable\nLock Info:\n  ID:        7d2b\n  Path:      terraform.tfstate\n  \
                      Operation: OperationTypeApply\n  Who:       ann@host\n  Version:   1.11.4\n  Created:   2026-11-20 17:42:57 +0000 \
                      UTC\n  Info:      \n";
        assert_eq!(
            of("Error acquiring the state lock", detail),
            Kind::StateLocked {
                id: "7d2b".into(),
                who: "ann@host".into(),
                operation: "OperationTypeApply".into(),
                created: "2026-11-20 17:42:57 +0000 UTC".into()
            }
        );
    }
}
