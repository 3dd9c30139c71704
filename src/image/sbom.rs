//! What is in an image, as a CycloneDX bill of materials (ECMA-424, version 1.5), which vulnerability scanners read.
//!
//! It bears no time and no drawn serial number: the same content gives the same bytes, whose SHA-256 is in the manifest.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::{Value, json};

use super::gpt::guid_from;

/// A package of the distribution.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Package {
    /// Its name, such as `libc6`.
    pub name: String,
    /// Its version, such as `2.36-9+deb12u10`.
    pub version: String,
    /// Its architecture, such as `amd64` or `all`.
    pub architecture: String,
}

/// A crate that the proxy is built from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its source, for one from a registry.
    pub sha256: Option<String>,
}

/// Packages from `dpkg-query --show --showformat='${Package}\t${Version}\t${Architecture}\n'`, sorted. Lines of another form are left out.
#[must_use]
pub fn packages(listing: &str) -> Vec<Package> {
    let mut found: Vec<Package> = listing.lines().filter_map(package).collect();
    found.sort();
    found.dedup();
    found
}

fn package(line: &str) -> Option<Package> {
    let mut fields = line.split('\t').map(str::trim);
    let (name, version, architecture) = (fields.next()?, fields.next()?, fields.next()?);
    let whole = ![name, version, architecture].contains(&"") && fields.next().is_none();
    whole.then(|| Package { name: name.to_owned(), version: version.to_owned(), architecture: architecture.to_owned() })
}

/// Crates from a `Cargo.lock`, sorted: those from a registry, which is what a scanner knows. Empty when it is no lock file.
///
/// They are a superset of what is linked: the lock file covers every target and every member of the workspace.
#[must_use]
pub fn crates(lock: &str) -> Vec<Crate> {
    let mut found = Vec::new();
    for block in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let mut lines = block.lines().take_while(|line| !line.starts_with("dependencies"));
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"')).map(str::to_owned)
        };
        let from_registry = field("source").is_some_and(|source| source.starts_with("registry+"));
        if let (true, Some(name), Some(version)) = (from_registry, field("name"), field("version")) {
            found.push(Crate { name, version, sha256: field("checksum") });
        }
    }
    found.sort();
    found
}

/// The bill of materials of the image `name`. `snapshot`: the date of the packages' snapshot, as in its address.
#[must_use]
pub fn cyclonedx(name: &str, version: &str, snapshot: &str, packages: &[Package], crates: &[Crate]) -> String {
    let debian = packages.iter().map(|package| {
        let Package { name, version, architecture } = package;
        let place = format!("pkg:deb/debian/{name}@{}?arch={architecture}&distro=debian-12", escaped(version));
        json!({ "type": "library", "bom-ref": place, "name": name, "version": version, "purl": place })
    });
    let rust = crates.iter().map(|part| {
        let place = format!("pkg:cargo/{}@{}", part.name, escaped(&part.version));
        let mut component =
            json!({ "type": "library", "bom-ref": place, "name": part.name, "version": part.version, "purl": place });
        if let (Some(sha256), Value::Object(fields)) = (&part.sha256, &mut component) {
            fields.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": sha256 }]));
        }
        component
    });
    let components: Vec<Value> = debian.chain(rust).collect();
    let content = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": { "type": "operating-system", "bom-ref": "image", "name": name, "version": version },
            "properties": [{ "name": "sipedge:snapshot", "value": snapshot }],
        },
        "components": components,
    });
    let mut bill = content;
    // The serial number says which content this is; it has to be made before it is part of it.
    let serial = format!("urn:uuid:{}", guid_from(&bill.to_string()));
    if let Value::Object(fields) = &mut bill {
        fields.insert("serialNumber".to_owned(), Value::String(serial));
    }
    format!("{bill:#}\n")
}

/// What is percent-encoded in a version of a package URL (purl specification, "character encoding").
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// A version as a package URL has it.
fn escaped(version: &str) -> PercentEncode<'_> {
    utf8_percent_encode(version, ENCODED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "libc6\t2.36-9+deb12u10\tamd64\nadduser\t3.134\tall\nbroken line\n\t\t\n";
    const LOCK: &str = "\
version = 4

[[package]]
name = \"memchr\"
version = \"2.8.0\"
source = \"registry+https://example.invalid/index\"
checksum = \"abcd\"

[[package]]
name = \"sipedge\"
version = \"0.1.0\"
dependencies = [
 \"memchr\",
]
";

    #[test]
    fn packages_are_sorted_and_whole() {
        let names: Vec<String> = packages(LISTING).into_iter().map(|package| package.name).collect();
        assert_eq!(names, ["adduser", "libc6"]);
    }

    #[test]
    fn crates_are_those_of_a_registry() {
        let expected = Crate { name: "memchr".into(), version: "2.8.0".into(), sha256: Some("abcd".into()) };
        assert_eq!(crates(LOCK), [expected]);
        assert!(crates("nothing").is_empty());
    }

    #[test]
    fn the_bill_names_everything_in_the_forms_that_scanners_know() {
        let bill = cyclonedx("sipedge-debian", "0.1.0", "20260101T000000Z", &packages(LISTING), &crates(LOCK));
        let bill: Value = serde_json::from_str(&bill).expect("JSON");
        assert_eq!(bill["bomFormat"], "CycloneDX");
        assert_eq!(bill["components"][1]["purl"], "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12");
        assert_eq!(bill["components"][2]["purl"], "pkg:cargo/memchr@2.8.0");
        assert_eq!(bill["components"][2]["hashes"][0]["content"], "abcd");
        let serial = bill["serialNumber"].as_str().expect("a string");
        assert_eq!(serial.len(), "urn:uuid:".len() + 36);
    }

    #[test]
    fn the_same_content_gives_the_same_bytes_and_another_another_number() {
        let bill = |version| cyclonedx("image", version, "", &packages(LISTING), &[]);
        assert_eq!(bill("1"), bill("1"));
        assert_ne!(bill("1"), bill("2"));
    }
}
