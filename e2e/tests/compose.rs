//! `docker-compose.yml`, the Dockerfile and `deploy/`, tested without a container engine: every
//! command, file and variable that they name exists, and the processes work with the same settings
//! and accounts.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in tests a panic is the report"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[path = "compose/accounts.rs"]
mod accounts;
#[path = "compose/rights.rs"]
mod rights;

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs `scripts/compose-env` twice. Returns the written variables.
fn dot_env(folder: &Path) -> BTreeMap<String, String> {
    let path = folder.join("env");
    for _ in 0..2 {
        let made = Command::new(root().join("scripts/compose-env"))
            .arg(&path)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Replaces `${NAME}` and `${NAME:?why}`, as Compose does.
fn interpolate(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut parts = text.split("${");
    let mut result = parts.next().unwrap().to_owned();
    for part in parts {
        let (inside, rest) = part.split_once('}').unwrap();
        let name = inside.split(":?").next().unwrap();
        result += environment
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in .env"));
        result += rest;
    }
    assert!(
        !result.contains('$'),
        "a variable in another form: {result}"
    );
    result
}

/// Parses `docker-compose.yml`, with variables replaced and anchors resolved.
fn compose(environment: &BTreeMap<String, String>) -> Value {
    let text: String = read("docker-compose.yml")
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    serde_saphyr::from_str(&interpolate(&text, environment))
        .expect("docker-compose.yml is not YAML")
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect()
}

fn environment_of(service: &Value) -> BTreeMap<String, String> {
    let variables = service["environment"].as_object().into_iter().flatten();
    variables
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

/// The services that run the image `tagtrail`, by name.
fn ours(compose: &Value) -> BTreeMap<&str, &Value> {
    let services = compose["services"].as_object().unwrap().iter();
    services
        .filter(|(_, service)| service["image"] == "tagtrail")
        .map(|(name, service)| (name.as_str(), service))
        .collect()
}

fn help(arguments: &[&str]) -> String {
    let done = Command::new(tagtrail_testkit::binary())
        .args(arguments)
        .arg("--help")
        .output()
        .unwrap();
    assert!(done.status.success(), "tagtrail {arguments:?}: {done:?}");
    // Joined to a single line, since line breaks depend on the width.
    let text = String::from_utf8(done.stdout).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The instructions of the Dockerfile, with continued lines joined.
fn dockerfile() -> Vec<(String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split_once(' ').unwrap())
        .map(|(instruction, rest)| {
            (
                instruction.to_owned(),
                rest.split_whitespace().collect::<Vec<_>>().join(" "),
            )
        })
        .collect()
}

#[test]
fn every_command_flag_variable_mount_and_port_exists() {
    let folder = tempfile::tempdir().unwrap();
    let environment = dot_env(folder.path());
    let compose = compose(&environment);
    let services = compose["services"].as_object().unwrap();
    assert_eq!(
        ours(&compose).into_keys().collect::<Vec<_>>(),
        [
            "api", "gateway", "indexer", "migrate", "resolver", "trigger"
        ]
    );
    let file = read("deploy/compose/tagtrail.toml");
    for (name, service) in ours(&compose) {
        let command = strings(&service["command"]);
        let manual = help(&command[..1]);
        for flag in command.iter().filter(|word| word.starts_with("--")) {
            assert!(manual.contains(*flag), "{name}: {flag}");
        }
        for variable in environment_of(service).keys() {
            let known = manual.contains(&format!("[env: {variable}"))
                || help(&["resolve"]).contains(&format!("[env: {variable}"))
                || file.contains(&format!("env = \"{variable}\""));
            assert!(known, "{name}: nobody reads {variable}");
        }
        // A service that reads tagtrail.toml has the file mounted.
        if service["environment"]["TAGTRAIL_CONFIG"].is_string() {
            let mounts = strings(&service["volumes"]);
            let target = service["environment"]["TAGTRAIL_CONFIG"].as_str().unwrap();
            assert!(
                mounts
                    .iter()
                    .any(|mount| mount.split(':').nth(1) == Some(target)),
                "{name}: {target}"
            );
        }
        if name != "migrate" {
            assert_eq!(
                strings(&service["healthcheck"]["test"]),
                ["CMD", "/usr/local/bin/tagtrail", "health"]
            );
            assert_eq!(
                service["depends_on"]["migrate"]["condition"],
                "service_completed_successfully"
            );
        }
        assert_eq!(
            (&service["read_only"], &service["cap_drop"][0]),
            (&Value::Bool(true), &Value::from("ALL"))
        );
    }
    let volumes = compose["volumes"].as_object().unwrap();
    for (name, service) in services {
        for mount in service["volumes"]
            .as_array()
            .map(|_| strings(&service["volumes"]))
            .unwrap_or_default()
        {
            let (from, _) = mount.split_once(':').unwrap();
            if from.starts_with("./") {
                assert!(root().join(from).is_file(), "{name}: {from} is not there");
                assert!(mount.ends_with(":ro"), "{name}: {mount} could be written");
            } else {
                assert!(
                    volumes.contains_key(from),
                    "{name}: the volume {from} is not declared"
                );
            }
        }
        for port in service["ports"]
            .as_array()
            .map(|_| strings(&service["ports"]))
            .unwrap_or_default()
        {
            let parts: Vec<&str> = port.split(':').collect();
            assert_eq!(
                (parts.len(), parts[0], parts[1]),
                (3, "127.0.0.1", parts[2]),
                "{name}: {port}"
            );
            let listens = match name.as_str() {
                "gateway" => "8400",
                "api" => "8401",
                "nats" => "4222",
                "registry" => "5000",
                other => panic!("{other} must not publish a port"),
            };
            assert_eq!(parts[2], listens);
        }
        for dependency in service["depends_on"].as_object().into_iter().flatten() {
            assert!(
                services.contains_key(dependency.0),
                "{name} depends on {}",
                dependency.0
            );
        }
        if let Some(image) = service["image"]
            .as_str()
            .filter(|image| *image != "tagtrail")
        {
            assert!(
                image.contains(':') && !image.ends_with(":latest"),
                "{name}: {image} is not pinned"
            );
        }
        assert!(
            name == "migrate" || service["healthcheck"]["test"].is_array(),
            "{name} has no health check"
        );
    }
    // The tests use the same version of nats-server.
    let setup = read("scripts/setup");
    let version = setup
        .lines()
        .find_map(|line| line.strip_prefix("nats_version="))
        .unwrap();
    assert_eq!(services["nats"]["image"], format!("nats:{version}-alpine"));
    assert!(read("deploy/nats/nats.conf").contains("sync_interval: always"));
    let given: BTreeSet<&String> = services["nats"]["environment"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    let conf = read("deploy/nats/nats.conf");
    let asked: BTreeSet<String> = conf
        .split('$')
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_uppercase() || *c == '_')
                .collect::<String>()
        })
        .filter(|name| name.starts_with("NATS_"))
        .collect();
    assert_eq!(given.into_iter().cloned().collect::<BTreeSet<_>>(), asked);
    for line in read("deploy/postgres/accounts.sql")
        .lines()
        .filter(|line| line.starts_with("\\getenv"))
    {
        let variable = line.split(' ').nth(2).unwrap();
        assert!(
            services["postgres"]["environment"][variable].is_string(),
            "{variable}"
        );
    }
}

#[test]
fn each_container_reaches_only_the_servers_that_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let compose = compose(&dot_env(folder.path()));
    let services = compose["services"].as_object().unwrap();
    let networks: BTreeMap<&str, BTreeSet<&str>> = services
        .iter()
        .map(|(name, service)| {
            let networks = strings(&service["networks"]).into_iter().collect();
            (name.as_str(), networks)
        })
        .collect();
    for (name, service) in services {
        let own = &networks[name.as_str()];
        let is_declared = |network: &&str| compose["networks"].get(*network).is_some();
        assert!(!own.is_empty() && own.iter().all(is_declared), "{name}");
        // The servers whose addresses its variables and its part of the configuration have.
        let text = serde_json::to_string(&service["environment"]).unwrap();
        let file = match service["environment"]["TAGTRAIL_CONFIG"].is_string() {
            true if name == "resolver" => read("deploy/compose/tagtrail.toml"),
            _ => String::new(),
        };
        for (server, mark) in [
            ("postgres", "@postgres:"),
            ("nats", "@nats:"),
            ("registry", "http://registry:"),
        ] {
            let is_needed = text.contains(mark) || file.contains(mark);
            // The registry sends its events to the gateway.
            let is_joined = name == server || (name == "gateway" && server == "registry");
            let reaches = !own.is_disjoint(&networks[server]);
            assert_eq!(reaches, is_needed || is_joined, "{name} and {server}");
        }
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(
            strings(&service["security_opt"]),
            ["no-new-privileges:true"],
            "{name}"
        );
        assert!(service["pids_limit"].is_u64(), "{name}");
    }
    assert_eq!(compose["networks"]["store"]["internal"], true);
    // A published port needs a network that is not internal.
    for (name, service) in services {
        let is_internal = |network: &&str| compose["networks"][*network]["internal"] == true;
        let all_internal = networks[name.as_str()].iter().all(is_internal);
        assert!(service["ports"].is_null() || !all_internal, "{name}");
    }
}

#[test]
fn the_image_is_built_from_existing_files_and_runs_without_root() {
    let lines = dockerfile();
    let of = |instruction: &str| -> Vec<&str> {
        lines
            .iter()
            .filter(|(name, _)| name == instruction)
            .map(|(_, rest)| rest.as_str())
            .collect()
    };
    let manifest = read("Cargo.toml");
    let rust = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .unwrap()
        .trim_matches('"');
    assert_eq!(
        of("FROM"),
        [
            &format!("rust:{rust}.0-bookworm AS build"),
            "debian:bookworm-slim AS git",
            "gcr.io/distroless/cc-debian12:nonroot"
        ]
    );
    assert!(of("ENV")[0] == format!("RUSTUP_TOOLCHAIN={rust}.0"));
    const BUILD: &str = "cargo auditable build ";
    let runs = of("RUN");
    let build = runs.iter().find(|run| run.contains(BUILD)).unwrap();
    let cargo = build
        .split(BUILD)
        .nth(1)
        .unwrap()
        .split(" &&")
        .next()
        .unwrap();
    assert_eq!(cargo, "--release --locked --package tagtrail");
    assert!(
        build.contains("cp target/release/tagtrail /usr/local/bin/tagtrail"),
        "{build}"
    );
    assert!(of("COPY").contains(&"--from=build /usr/local/bin/tagtrail /usr/local/bin/tagtrail"));
    assert!(
        of("COPY").contains(&"LICENSE /usr/share/doc/tagtrail/LICENSE")
            && root().join("LICENSE").is_file()
    );
    let notices = "--from=build /usr/local/share/NOTICES.txt /usr/share/doc/tagtrail/NOTICES.txt";
    assert!(
        of("COPY").contains(&notices)
            && build.contains("scripts/notices /usr/local/share/NOTICES.txt")
            && root().join("scripts/notices").is_file()
    );
    // Both images, with git and without, run the program in the same way.
    assert_eq!(of("USER"), ["nonroot"; 2]);
    assert_eq!(of("ENTRYPOINT"), ["[\"/usr/local/bin/tagtrail\"]"; 2]);
    assert_eq!(of("EXPOSE"), ["8400 8401 8402"; 2]);
    assert_eq!(of("ENV")[1], of("ENV")[2]);
    // Each variable is a setting of its service, and each port is the default.
    let settings: BTreeMap<&str, &str> = of("ENV")[1]
        .split(' ')
        .map(|setting| setting.split_once('=').unwrap())
        .collect();
    for (service, variable) in [
        ("gateway", "TAGTRAIL_GATEWAY_LISTEN"),
        ("api", "TAGTRAIL_API_LISTEN"),
        ("api", "TAGTRAIL_ADMIN"),
        ("api", "TAGTRAIL_LOG_FORMAT"),
    ] {
        let manual = help(&[service]);
        assert!(manual.contains(&format!("[env: {variable}")), "{variable}");
        if let Some((_, port)) = settings[variable].split_once(':') {
            assert!(
                manual.contains(&format!("127.0.0.1:{port}")),
                "{variable}: {port}"
            );
        }
    }
    assert_eq!(settings.len(), 4);
    for check in of("HEALTHCHECK") {
        assert!(check.ends_with("CMD [\"/usr/local/bin/tagtrail\", \"health\"]"));
    }
}

#[test]
fn the_tagtrail_toml_of_compose_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let checked = Command::new(tagtrail_testkit::binary())
        .args(["config", "check"])
        .arg(root().join("deploy/compose/tagtrail.toml"))
        .envs(dot_env(folder.path()))
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}
