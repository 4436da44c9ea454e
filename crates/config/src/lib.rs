//! `tagtrail.toml`: sources, registries and triggers. A mistake in one entry hides no other.
//!
//! In scope: the form of the file, its secrets, and errors that name file, line, key and cure. Out
//! of scope: the settings of a kind of source or target (the services' tables of kinds), and the
//! settings of processes (flags and environment variables).
//!
//! ```
//! # let text = r##"
//! [[source]]
//! name = "main"                        # POST /hooks/main, or /hooks/main/SECRET
//! kind = "distribution"
//! registry = "registry.example.com"    # of all its events; "any": the host that an event names
//! secret = { env = "MAIN_HOOK_SECRET" }    # or { file = "…" }; a list of two allows rotation
//! repositories = ["shop/**"]           # optional: the repositories that it may report
//!
//! [[registry]]                         # how to reach it
//! name = "registry.example.com"
//! url = "https://registry.example.com"
//! username = "ci"
//! password = { file = "/run/secrets/registry" }
//! reconcile = "1h"                     # interval of comparisons with history; "0s": never
//! watch_triggers = "1m"                # find lost changes of triggers' images within this time
//! watch = ["shop/web"]                 # also reconcile before the first event
//! aliases = ["localhost:5000"]         # other names of the same registry
//!
//! [[trigger]]                          # also in files of a folder: triggers = "triggers.d"
//! name = "shop"
//! images.web = "registry.example.com/shop/web:latest"
//! images.worker = "registry.example.com/shop/worker:latest"
//! images.api = { repository = "registry.example.com/shop/api", semver = "^1.4" }
//! settle = "0s"
//! labels.team = "shop"                # for lists and filters
//! target.webhook = { url = "https://deploy.example.com/hooks/shop", secret = { file = "/run/secrets/shop" } }
//! ## target.command = { run = ["./deploy.sh"] }
//!
//! [[token]]                            # for an API that other machines can reach
//! name = "dashboard"
//! secret = { file = "/run/secrets/dashboard" }
//! role = "read"                        # or "approve", "operate", "report"
//! ## triggers = ["shop-*"]             # with "operate" or "approve": act on no other triggers
//!
//! [[cluster]]                          # a cluster of Kubernetes
//! name = "prod"
//!
//! [[notify]]                           # messages about rollouts
//! name = "team-a"
//! on = ["failed", "held"]
//! triggers = ["team-a-*"]
//! format = "slack"                     # or teams, discord, cloudevents, cdevents
//! url = { file = "/run/secrets/chat" }
//!
//! [[secret]]                           # secrets that triggers of the API may name
//! name = "shop-hook"
//! file = "/run/secrets/shop"
//! triggers = ["shop-*"]
//!
//! [api_triggers]                       # the API may make triggers
//! allow_addresses = ["10.1.0.0/16"]    # with targets at these private addresses
//!
//! [pages]
//! hosts = ["tagtrail.example.com"]     # names by which clients reach the gateway and the api
//!
//! [pages.identity]                     # a proxy before the pages signs people in
//! header = "X-Goog-IAP-JWT-Assertion"
//! issuer = "https://cloud.google.com/iap"
//! audience = "/projects/1/global/backendServices/2"
//! keys = { url = "https://www.gstatic.com/iap/verify/public_key-jwk" }
//! operate = ["platform@example.com"]   # groups whose people give orders; the others read
//! # "##;
//! let file = tagtrail_config::File::parse(text, "tagtrail.toml".as_ref())?;
//! assert_eq!(file.trigger[0].images.len(), 3);
//! # Ok::<(), tagtrail_config::ConfigError>(())
//! ```

mod api_triggers;
mod broken;
mod chain;
mod cluster;
mod cure;
mod document;
mod door;
mod duration;
mod entries;
mod file;
mod files;
mod follow;
mod fresh;
mod gates;
mod host;
mod identity;
mod images;
mod names;
mod notify;
mod plain;
mod registry;
mod secret;
mod source;
mod spec;
mod text;
mod token;
mod trigger;
mod verify;

pub use api_triggers::{Allowances, ApiTriggers, NamedSecret, Network, THE_API};
pub use broken::{Broken, Checked, Table};
pub use cluster::{Cluster, Discover, image_of_stream, is_label};
pub use cure::closest;
pub use document::ConfigError;
pub use door::{Door, Shown, Spec, hash};
pub use file::{File, NONE, Pages};
pub use follow::Follower;
pub use fresh::{Fresh, Stamp, stamp};
pub use host::HostName;
pub use identity::{Identity, IdentityKeys};
pub use names::{ImagePattern, Names};
pub use notify::{Notify, NotifyFormat, NotifyOn};
pub use registry::RegistryAccess;
pub use secret::{Live, SHORT, Secret, SecretError, Secrets, is_short};
pub use source::{Pulls, SettingError, Settings, Source, SourceRegistry};
pub use tagtrail_policy::decide::Start;
pub use tagtrail_policy::glob::Glob;
pub use tagtrail_policy::watched::{Watched, WatchedPolicy};
pub use text::Text;
pub use token::{Role, Token, TriggerGlob};
/// A value with a place in the file, for [`File::error_at`].
pub use toml::Spanned;
/// An entry as it is written, without its place in the file.
pub use toml::Value as Written;
pub use trigger::{
    Concurrency, OnFailure, OnTargetChange, RetrySettings, TargetEntry, Then, Trigger,
};
pub use verify::VerifyStep;

#[cfg(test)]
mod tests;
