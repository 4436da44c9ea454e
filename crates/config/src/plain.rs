//! Passwords of registries that would travel in plain text.

use std::net::IpAddr;

use crate::File;

impl File {
    /// Returns a warning for each address that receives the password of a registry over plain HTTP
    /// on another machine.
    pub(crate) fn plain_passwords(&self) -> impl Iterator<Item = String> {
        let with_password = self.registry.iter().filter(|r| r.password.is_some());
        let addresses = with_password.flat_map(|registry| {
            let realm = registry.realm.as_ref();
            let realm = realm.map(|realm| ("registry.realm", realm));
            [("registry.url", &registry.url)].into_iter().chain(realm)
        });
        let plain = addresses.filter(|(_, url)| is_plain(url.get_ref()));
        plain.map(|(key, url)| {
            let message = format!(
                "{} receives the password over plain http, so others on the way can read it: use https",
                url.get_ref()
            );
            self.error_at(url.span().start, key, message).to_string()
        })
    }
}

/// Returns true for an address of HTTP that is not on this machine.
fn is_plain(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    };
    let is_local = host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !is_local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(settings: &str) -> Vec<String> {
        let text = format!("[[registry]]\nname = 'r.example.com'\n{settings}");
        let file = File::parse(&text, "tagtrail.toml".as_ref()).unwrap();
        file.warnings()
    }

    #[test]
    fn a_password_over_plain_http_is_warned_about() {
        let password = "username = 'reader'\npassword = { env = 'PASSWORD' }\n";
        for url in ["http://r.example.com", "http://10.1.2.3:5000/hub"] {
            let found = warnings(&format!("url = '{url}'\n{password}"));
            assert_eq!(
                found,
                [format!(
                    "tagtrail.toml:3: registry.url: {url} receives the password over plain http, so others on the way can read it: use https"
                )]
            );
        }
        let realm = "url = 'https://r.example.com'\nrealm = 'http://auth.example.com/token'\n";
        let found = warnings(&format!("{realm}{password}"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("tagtrail.toml:4: registry.realm: "));
    }

    #[test]
    fn without_a_password_or_a_way_nothing_is_warned_about() {
        assert_eq!(warnings("url = 'http://r.example.com'\n"), [""; 0]);
        let password = "username = 'reader'\npassword = { env = 'PASSWORD' }\n";
        for url in [
            "https://r.example.com",
            "http://localhost:5000",
            "http://registry.localhost",
            "http://127.0.0.2:5000/x",
            "http://[::1]:5000",
        ] {
            let found = warnings(&format!("url = '{url}'\n{password}"));
            assert_eq!(found, [""; 0], "{url}");
        }
    }
}
