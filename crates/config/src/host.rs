//! Names of hosts.

use std::fmt;

use serde::Deserialize;

/// The name of a host, without scheme and port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostName(String);

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(name: String) -> Result<HostName, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let label = |label: &str| !label.is_empty() && label.bytes().all(plain);
        match name.len() <= 253 && name.split('.').all(label) {
            true => Ok(HostName(name)),
            false => Err(format!(
                "{name:?} is not the name of a host; write it without scheme, port and path, such as \"tagtrail.example.com\""
            )),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_no_scheme_and_no_port() {
        for name in ["tagtrail.example.com", "gateway", "a_b-1.internal"] {
            let host = HostName::try_from(name.to_owned()).unwrap();
            assert_eq!(host.to_string(), name);
        }
        for name in [
            "",
            "https://a.example.com",
            "a.example.com:443",
            "a..b",
            "*.a",
            "a/b",
            ".",
        ] {
            let error = HostName::try_from(name.to_owned()).unwrap_err();
            assert!(error.contains("without scheme, port and path"), "{error}");
        }
    }
}
