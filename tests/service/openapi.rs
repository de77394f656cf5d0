//! docs/openapi.yaml has exactly the paths and methods that exist. tests/openapi/run checks that the answers
//! are as it says.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{Host, Transport};

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Returns the methods of each path in docs/openapi.yaml, found by its indentation.
fn described() -> BTreeMap<String, BTreeSet<String>> {
    let text = include_str!("../../docs/openapi.yaml");
    let (_, paths) = text.split_once("\npaths:\n").unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut path = String::new();
    for line in paths.lines().take_while(|line| line.is_empty() || line.starts_with(' ')) {
        if let Some(name) = line.strip_prefix("  /").and_then(|name| name.strip_suffix(':')) {
            path = format!("/{name}");
            found.entry(path.clone()).or_default();
        } else if let Some(key) = line.strip_prefix("    ").and_then(|key| key.strip_suffix(':')) {
            if METHODS.contains(&key.to_uppercase().as_str()) {
                found.entry(path.clone()).or_default().insert(key.to_uppercase());
            }
        }
    }
    found
}

#[test]
fn it_has_the_paths_and_methods_that_are_answered() {
    let host = Host::start(Transport::PassedUnix);
    let described = described();
    for (path, methods) in &described {
        let path = path.replace("{name_email}", "user%23project@copr.example.org");
        for method in METHODS {
            let request = format!("{method} {path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
            let reply = host.send(request.as_bytes()).unwrap();
            let is_refused = reply.status == 405;
            assert_eq!(is_refused, !methods.contains(method), "{method} {path}: {}", reply.body);
            assert!(!reply.body.contains("nothing at this path"), "{path}");
        }
    }
    // The answer for an unknown path names all paths.
    let nothing = host.get("/nothing").unwrap();
    assert_eq!(nothing.status, 404);
    let (_, answers) = nothing.body.trim_end().split_once("answers ").unwrap();
    let words = answers.split([' ', ',']).filter(|word| word.starts_with('/'));
    let answered: BTreeSet<_> =
        words.map(|path| path.replace("NAME_EMAIL", "{name_email}")).collect();
    assert_eq!(answered, described.into_keys().collect::<BTreeSet<_>>());
}
