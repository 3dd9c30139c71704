//! Where the services are.

use reqwest::Url;

use super::error::CloudError;

/// A service that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Systems Manager: Parameter Store.
    Ssm,
    /// EC2 Auto Scaling.
    AutoScaling,
    /// EC2.
    Ec2,
}

impl Service {
    /// Its name in host names, signatures and IAM actions.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ssm => "ssm",
            Self::AutoScaling => "autoscaling",
            Self::Ec2 => "ec2",
        }
    }

    /// The variable that names another endpoint for it alone (AWS SDKs and Tools Reference Guide, "Service-specific endpoints").
    const fn variable(self) -> &'static str {
        match self {
            Self::Ssm => "AWS_ENDPOINT_URL_SSM",
            Self::AutoScaling => "AWS_ENDPOINT_URL_AUTO_SCALING",
            Self::Ec2 => "AWS_ENDPOINT_URL_EC2",
        }
    }
}

/// The variable that names another endpoint for all services.
const FOR_ALL: &str = "AWS_ENDPOINT_URL";

/// Endpoints that stand in for the regional ones, such as those of private DNS names or of a test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    ssm: Option<String>,
    auto_scaling: Option<String>,
    ec2: Option<String>,
}

impl Endpoints {
    /// Those that the variables `AWS_ENDPOINT_URL_SSM`, `AWS_ENDPOINT_URL_AUTO_SCALING`, `AWS_ENDPOINT_URL_EC2` name, or
    /// `AWS_ENDPOINT_URL` for all. `variable` reads one.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let named = |name: &str| variable(name).filter(|url| !url.is_empty());
        let of = |service: Service| named(service.variable()).or_else(|| named(FOR_ALL));
        Self { ssm: of(Service::Ssm), auto_scaling: of(Service::AutoScaling), ec2: of(Service::Ec2) }
    }

    /// These, with another one for SSM where a configuration names it.
    pub fn with_ssm(mut self, url: Option<&str>) -> Self {
        if let Some(url) = url {
            self.ssm = Some(url.to_owned());
        }
        self
    }

    /// Where `service` is in `region`.
    pub(super) fn url(&self, service: Service, region: &str) -> Result<Url, CloudError> {
        let named = match service {
            Service::Ssm => &self.ssm,
            Service::AutoScaling => &self.auto_scaling,
            Service::Ec2 => &self.ec2,
        };
        let text = named.clone().unwrap_or_else(|| regional(service, region));
        let refused = |reason: String| CloudError::Endpoint { variable: service.variable(), url: text.clone(), reason };
        let url = Url::parse(&text).map_err(|error| refused(error.to_string()))?;
        match (url.scheme(), url.host_str(), url.path()) {
            ("http" | "https", Some(_), "/") => Ok(url),
            _ => Err(refused("not of the form https://HOST[:PORT]".to_owned())),
        }
    }
}

/// As AWS General Reference, "Service endpoints", has it.
fn regional(service: Service, region: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{}.{region}.{suffix}", service.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_s_own_variable_comes_first_then_that_for_all_then_the_region() {
        let endpoints = Endpoints::from_variables(|name| match name {
            "AWS_ENDPOINT_URL_SSM" => Some("https://ssm.internal:8443".into()),
            "AWS_ENDPOINT_URL_EC2" => Some(String::new()),
            "AWS_ENDPOINT_URL" => Some("http://127.0.0.1:5000".into()),
            _ => None,
        });
        let url = |endpoints: &Endpoints, service, region| endpoints.url(service, region).unwrap().to_string();
        assert_eq!(url(&endpoints, Service::Ssm, "us-east-1"), "https://ssm.internal:8443/");
        assert_eq!(url(&endpoints, Service::Ec2, "us-east-1"), "http://127.0.0.1:5000/");
        let none = Endpoints::from_variables(|_| None);
        assert_eq!(url(&none, Service::AutoScaling, "us-east-1"), "https://autoscaling.us-east-1.amazonaws.com/");
        assert_eq!(url(&none, Service::Ssm, "cn-north-1"), "https://ssm.cn-north-1.amazonaws.com.cn/");
        for wrong in ["ssm.internal", "ftp://ssm.internal", "https://ssm.internal/path"] {
            let error = Endpoints::from_variables(|_| Some(wrong.into())).url(Service::Ssm, "us-east-1").unwrap_err();
            assert!(error.to_string().contains("AWS_ENDPOINT_URL_SSM"), "{error}");
        }
    }
}
