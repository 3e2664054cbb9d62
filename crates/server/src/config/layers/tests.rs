//! Layers of values, as a person would write them.

use super::*;

fn with(text: &str, variables: &[(&str, &str)], sets: &[&str]) -> Result<Layers, ConfigError> {
    let mut layers = Layers::new();
    layers.text(text, Path::new("vencejo.toml"));
    let variables = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    layers.environment(variables)?;
    for set in sets {
        layers.set(set)?;
    }
    Ok(layers)
}

fn config(text: &str, variables: &[(&str, &str)], sets: &[&str]) -> Result<Config, String> {
    let layers = with(text, variables, sets).map_err(|error| error.to_string())?;
    layers.check().map_err(|error| error.to_string())
}

#[test]
fn a_flag_wins_over_set_over_the_environment_over_the_file() {
    let text = "shards = 1\n";
    let variables = [("VENCEJO__SHARDS", "2")];
    assert_eq!(config(text, &[], &[]).expect("is valid").shards.get(), 1);
    assert_eq!(
        config(text, &variables, &[])
            .expect("is valid")
            .shards
            .get(),
        2
    );
    let set = ["shards=3"];
    assert_eq!(
        config(text, &variables, &set)
            .expect("is valid")
            .shards
            .get(),
        3
    );
    let mut layers = with(text, &variables, &set).expect("are keys");
    layers.flag("--shards", "shards", "4");
    assert_eq!(layers.check().expect("is valid").shards.get(), 4);
}

#[test]
fn variables_set_every_form_of_value() {
    let variables = [
        ("VENCEJO__LISTENERS__0__ADDRESS", "127.0.0.1:7"),
        ("VENCEJO__LISTENERS__0__NAME", "1883"),
        ("VENCEJO__LISTENERS__0__PROXY", "10.0.0.0/8, 10.1.0.1"),
        ("VENCEJO__LISTENERS__1__ADDRESS", "unix:/run/a"),
        ("VENCEJO__LISTENERS__1__GROUP", "12"),
        ("VENCEJO__LIMITS__CONNECT_TIMEOUT", "20"),
        ("VENCEJO__LIMITS__CONGESTED_BYTES", "1MiB"),
        ("VENCEJO__LIMITS__RETAIN_AVAILABLE", "false"),
        ("VENCEJO__LIMITS__OVERFLOW_POLICY", "drop-oldest"),
        ("VENCEJO__AUTHENTICATION__HTTP__URL", "https://a"),
        ("VENCEJO__AUTHENTICATION__HTTP__HEADERS__X_KEY", "a \"b\""),
    ];
    let config = config("", &variables, &[]).expect("is valid");
    assert_eq!(config.listeners[0].name, "1883");
    assert!(config.listeners[0].proxy.is_some());
    assert_eq!(config.listeners[1].file.group.as_deref(), Some("12"));
    assert_eq!(config.bounds.connect_timeout.as_secs(), 20);
    assert_eq!(config.bounds.congested_bytes, 1 << 20);
    assert!(!config.limits.retain_available);
    let http = config.authentication.http.expect("is given");
    let (name, value) = &http.headers[0];
    assert_eq!(
        (name.as_str(), value.to_str().ok()),
        ("x-key", Some("a \"b\""))
    );
}

#[test]
fn variables_that_name_nothing_are_errors_with_the_nearest_name() {
    let said = |name: &str| config("", &[(name, "1")], &[]).expect_err("names nothing");
    assert_eq!(
        said("VENCEJO__LIMITS__RECIEVE_MAXIMUM"),
        "environment variable VENCEJO__LIMITS__RECIEVE_MAXIMUM: there is no key `limits.recieve_maximum`, did you mean \
         `VENCEJO__LIMITS__RECEIVE_MAXIMUM`?"
    );
    assert!(said("VENCEJO__").contains("there is no key"));
    assert_eq!(
        said("VENCEJO_LIMITS_SESSIONS_MAX"),
        "environment variable VENCEJO_LIMITS_SESSIONS_MAX: two underscores stand between names: \
         VENCEJO__LIMITS__SESSIONS_MAX"
    );
    // What Kubernetes makes for a service of this name.
    assert!(config("", &[("VENCEJO_PORT", "tcp://10.0.0.1:1883")], &[]).is_ok());
}

#[test]
fn a_wrong_value_of_a_variable_is_told_with_its_name() {
    let said = |name: &str, value: &str| config("", &[(name, value)], &[]).expect_err("is wrong");
    assert_eq!(
        said("VENCEJO__SHARDS", "99"),
        "environment variable VENCEJO__SHARDS: shards must be from 1 to 64"
    );
    assert_eq!(
        said("VENCEJO__STORAGE__LEVEL", "sync"),
        "environment variable VENCEJO__STORAGE__LEVEL: unknown word `sync`, did you mean `synced`?"
    );
    assert!(
        said("VENCEJO__SHARDS", "two").contains("VENCEJO__SHARDS: invalid type: string \"two\"")
    );
    assert!(
        said("VENCEJO__LISTENERS__3__NAME", "a").contains("there is no listeners.3: 0 are there")
    );
    assert!(said("VENCEJO__LISTENERS__NAME", "a").contains("listeners"));
}

#[test]
fn a_secret_comes_from_a_file_and_is_never_told() {
    let folder = std::env::temp_dir().join(format!("vencejo-layers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("secret");
    std::fs::write(&file, "redis://me:hidden@localhost\n").expect("is written");
    let path = file.to_str().expect("is UTF-8");
    let text = "[stop]\nserver_moved = false\n";
    let name = "VENCEJO__STOP__SERVER_REFERENCE_FILE";
    let config_of = |path: &str| config(text, &[(name, path)], &[]);
    let reference = config_of(path).expect("is valid").stop.server_reference;
    assert_eq!(reference.as_deref(), Some("redis://me:hidden@localhost"));
    let name = "VENCEJO__AUTHENTICATION__HTTP__URL_FILE";
    let said = config("", &[(name, path)], &[]).expect_err("is no URL of HTTP");
    assert!(!said.contains("hidden") && said.contains(name), "{said}");
    let twice = [
        ("VENCEJO__STOP__SERVER_REFERENCE", "a"),
        ("VENCEJO__STOP__SERVER_REFERENCE_FILE", path),
    ];
    assert!(
        config("", &twice, &[])
            .expect_err("is given twice")
            .contains("twice")
    );
    let missing = config_of("/nowhere/secret").expect_err("is not there");
    assert!(
        missing.contains("/nowhere/secret: No such file"),
        "{missing}"
    );
    let of_file = config("", &[("VENCEJO__AUTHORIZATION__ACL_FILE_FILE", path)], &[]);
    assert!(
        of_file
            .expect_err("names a file")
            .contains("is the name of a file itself")
    );
    std::fs::remove_dir_all(&folder).ok();
}

#[test]
fn set_names_a_key_and_a_value() {
    let said = |set: &str| config("", &[], &[set]).expect_err("is wrong");
    assert!(said("shards").contains("--set shards: wanted key=value"));
    assert!(
        said("sharts=1").contains("--set sharts: there is no key `sharts`, did you mean `shards`?")
    );
    assert_eq!(
        said("limits.maximum_qos=3"),
        "--set limits.maximum_qos: maximum_qos must be from 0 to 2"
    );
    let sets = [
        "listeners=[{ address = \"127.0.0.1:5\" }]",
        "listeners.0.name=\"a b\"",
        "storage.data=x=y",
    ];
    let config = config("[[listeners]]\naddress = \"127.0.0.1:4\"", &[], &sets).expect("is valid");
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:5");
    assert_eq!(config.listeners[0].name, "a b");
    assert_eq!(config.storage.data, Path::new("x=y"));
}

#[test]
fn all_problems_are_told_each_once() {
    let text = "sharts = 1\nshards = 0\n[limits]\nmaximum_qos = 7\nconnect_timeout = \"10 years\"\n\
                [[listeners]]\naddress = \"localhost\"\n[storage]\nlevel = \"sync\"\n";
    let mut layers = Layers::new();
    layers.text(text, Path::new("vencejo.toml"));
    let problems: Vec<String> = layers.problems().iter().map(ToString::to_string).collect();
    let mut places: Vec<&str> = problems
        .iter()
        .map(|problem| problem.split(' ').next().unwrap_or_default())
        .collect();
    places.sort_unstable();
    let expected = [
        "vencejo.toml:1:1:",
        "vencejo.toml:2:10:",
        "vencejo.toml:4:15:",
        "vencejo.toml:5:19:",
        "vencejo.toml:7:11:",
        "vencejo.toml:9:9:",
    ];
    for place in expected {
        assert!(places.contains(&place), "{place} of {problems:#?}");
    }
    assert!(places.len() <= expected.len() + 1, "{problems:#?}");
}

#[test]
fn all_that_is_no_toml_is_told() {
    let mut layers = Layers::new();
    layers.text("a = \nb = 1\nc = \n", Path::new("vencejo.toml"));
    let places: Vec<String> = layers.problems().iter().map(ToString::to_string).collect();
    assert!(places.len() >= 2, "{places:?}");
    assert!(places[0].starts_with("vencejo.toml:1:") && places[1].starts_with("vencejo.toml:3:"));
    layers = Layers::new();
    layers.text("shards = 1", Path::new("vencejo.toml"));
    assert!(layers.problems().is_empty());
}
