//! The credentials of a repository, and how git gets them: as files and variables of one turn, never
//! as arguments.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use secrecy::{ExposeSecret, SecretString};
use tagtrail_config::{Fresh, Secret};

use super::place::Url;
use super::program::Environment;
use super::settings::{Auth, Author, Settings};

/// Options of SSH besides key and hosts: no settings of a user, no questions, nothing forwarded.
const SSH: &str = "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none -o StrictHostKeyChecking=yes \
    -o UpdateHostKeys=no -o GlobalKnownHostsFile=/dev/null -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ControlMaster=no \
    -o ControlPath=none -o ForwardAgent=no -o ClearAllForwardings=yes -o PermitLocalCommand=no";

/// Answers git from two variables. The shell gets no text but this one.
const HELPER: &str = "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n' \"$TAGTRAIL_USERNAME\" \"$TAGTRAIL_PASSWORD\"; }; f";

/// The secrets of a target, as they are now. Without `Debug`: nothing may log them.
pub(super) struct Access {
    identity: Identity,
    sign: Option<SecretString>,
    ca: Option<SecretString>,
}

enum Identity {
    None,
    Ssh {
        key: SecretString,
        known_hosts: SecretString,
    },
    Password {
        username: SecretString,
        secret_name: bool,
        password: SecretString,
    },
}

impl Access {
    /// Reads the secrets, again when one changes.
    pub(super) fn fresh(settings: &Settings, of: String) -> Result<Fresh<Access>, String> {
        let mut places: Vec<Secret> = settings.places().into_iter().cloned().collect();
        places.extend(settings.ca.clone());
        if let Auth::Ssh(ssh) = &settings.auth {
            places.push(ssh.known_hosts.clone());
        }
        let (auth, sign, ca) = (
            settings.auth.clone(),
            settings.sign.clone(),
            settings.ca.clone(),
        );
        Fresh::new(of, places, move || {
            Access::read(&auth, sign.as_ref(), ca.as_ref())
        })
    }

    fn read(auth: &Auth, sign: Option<&Secret>, ca: Option<&Secret>) -> Result<Access, String> {
        let read =
            |key: &str, place: &Secret| place.read().map_err(|error| format!("{key}: {error}"));
        let identity = match auth {
            Auth::None => Identity::None,
            Auth::Ssh(ssh) => Identity::Ssh {
                key: private_key("auth.ssh.key", read("auth.ssh.key", &ssh.key)?)?,
                known_hosts: read("auth.ssh.known_hosts", &ssh.known_hosts)?,
            },
            Auth::Password(with) => {
                let username = with.username.read();
                let username = username.map_err(|error| format!("auth.username: {error}"))?;
                let password = read("auth.password", &with.password)?;
                for (key, text) in [("username", &username), ("password", &password)] {
                    if text.expose_secret().contains(['\n', '\r', '\0']) {
                        return Err(format!("auth.{key}: has several lines; write it in one"));
                    }
                }
                Identity::Password {
                    username,
                    secret_name: with.username.secret().is_some(),
                    password,
                }
            }
        };
        let sign = sign.map(|place| private_key("sign.ssh", read("sign.ssh", place)?));
        let ca = ca.map(|place| read("ca", place)).transpose()?;
        if ca
            .as_ref()
            .is_some_and(|ca| !ca.expose_secret().contains("BEGIN CERTIFICATE"))
        {
            return Err("ca: the file holds no certificate; write a PEM file".to_owned());
        }
        Ok(Access {
            identity,
            sign: sign.transpose()?,
            ca,
        })
    }

    /// Returns the texts that nothing shows.
    pub(super) fn hidden(&self) -> Vec<&str> {
        let mut hidden: Vec<&str> = self.sign.iter().map(ExposeSecret::expose_secret).collect();
        match &self.identity {
            Identity::None => {}
            Identity::Ssh { key, .. } => hidden.push(key.expose_secret()),
            Identity::Password {
                username,
                secret_name,
                password,
            } => {
                hidden.push(password.expose_secret());
                hidden.extend(secret_name.then(|| username.expose_secret()));
            }
        }
        hidden
    }

    /// Returns whether two targets act as the same account, so that one commit may be of both.
    pub(super) fn is_same(&self, other: &Access) -> bool {
        self.parts() == other.parts()
    }

    fn parts(&self) -> [Option<&str>; 4] {
        let (first, second) = match &self.identity {
            Identity::None => (None, None),
            Identity::Ssh { key, known_hosts } => (Some(key), Some(known_hosts)),
            Identity::Password {
                username, password, ..
            } => (Some(username), Some(password)),
        };
        let parts = [first, second, self.sign.as_ref(), self.ca.as_ref()];
        parts.map(|part| part.map(ExposeSecret::expose_secret))
    }

    /// Hands the credentials to git. They lie in files as long as the answer lives.
    pub(super) fn give(
        &self,
        url: &Url,
        author: &Author,
        folder: &Path,
        environment: &mut Environment,
    ) -> io::Result<Given> {
        let given = Given::new(folder)?;
        match &self.identity {
            Identity::None => {}
            Identity::Ssh { key, known_hosts } => {
                let key = given.file("key", key.expose_secret())?;
                let hosts = given.file("known_hosts", known_hosts.expose_secret())?;
                let ssh = format!(
                    "{SSH} -i {} -o UserKnownHostsFile={}",
                    quoted(&key),
                    quoted(&hosts)
                );
                environment.variable("GIT_SSH_COMMAND", ssh);
                environment.variable("GIT_SSH_VARIANT", "ssh");
            }
            Identity::Password {
                username, password, ..
            } => {
                environment.variable("TAGTRAIL_USERNAME", username.expose_secret());
                environment.variable("TAGTRAIL_PASSWORD", password.expose_secret());
                // No other server gets them.
                environment.setting(format!("credential.{}.helper", url.origin()), HELPER);
            }
        }
        if let Some(sign) = &self.sign {
            let key = given.file("sign", sign.expose_secret())?;
            environment.setting("gpg.format", "ssh");
            environment.setting("user.signingKey", key.to_string_lossy());
        }
        if let Some(ca) = &self.ca {
            let ca = given.file("ca.pem", ca.expose_secret())?;
            environment.setting("http.sslCAInfo", ca.to_string_lossy());
        }
        for role in ["AUTHOR", "COMMITTER"] {
            environment.variable(&format!("GIT_{role}_NAME"), &author.name);
            environment.variable(&format!("GIT_{role}_EMAIL"), &author.email);
        }
        Ok(given)
    }

    pub(super) fn signs(&self) -> bool {
        self.sign.is_some()
    }
}

/// The files with the credentials of one turn. A drop removes them.
pub(super) struct Given(PathBuf);

impl Given {
    fn new(folder: &Path) -> io::Result<Given> {
        let path = folder.join(format!("access-{:016x}", rand::random::<u64>()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Given(path))
    }

    /// Writes a file that only this user can read. SSH wants a newline at its end.
    fn file(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        Ok(path)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(
                "the credentials in {} can't be removed; remove them by hand: {error}",
                self.0.display()
            );
        }
    }
}

/// Returns a path for a shell, which git calls SSH by.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

/// Refuses a text that is no private key, such as the public half.
fn private_key(key: &str, text: SecretString) -> Result<SecretString, String> {
    match text.expose_secret().starts_with("-----BEGIN ") {
        true => Ok(text),
        false => Err(format!(
            "{key}: is no private key of SSH; make one without a passphrase by: ssh-keygen -t ed25519 -N '' -f key"
        )),
    }
}
