//! Measures signing as obs-signd does it, call for call (examples/signd-client.rs): with few keys, with many,
//! and on a shared keyring with plain gpg.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::old::{self, Home};
use crate::samples::{Contender, Figure, alternate, timed};
use crate::service::{self, BINARY};
use crate::state::State;
use crate::{Bench, Result, Site, bare};

const ROUNDS: usize = 40;

pub fn measure(bench: &Bench, sites: &[Site]) -> Result<Vec<Figure>> {
    let file = package(bench)?;
    let name = bench.names.next();
    let mut ends: Vec<_> = [sites.first(), sites.last()].into_iter().flatten().collect();
    ends.dedup_by_key(|site| site.size);
    let homes = Home::open_all(bench, sites)?;

    let client = client()?;
    let mut contenders = Vec::new();
    for site in &ends {
        site.service.expect(&service::gen_key(&name, 2048, 0), 201)?;
        let (agent, name) = (AgentClient::new(bench, site)?, &name);
        let sign = move || timed(|| agent.sign(name));
        contenders.push(Contender::new("sign", Some(site.size + 1), "ms", sign));
    }
    for home in &homes {
        let (client, file) = (&client, &file);
        let sign = move || {
            let mut command = Command::new(client);
            command.env_clear().env("PATH", "/usr/bin:/bin").env("GNUPGHOME", home.path());
            command.env("SIGND_GPG", "/usr/bin/gpg");
            command.env("SIGND_PHRASES", home.path().join("phrases"));
            timed(|| service::stdout_of(command.args(["sign", &old::own_name(0)]).arg(file)))
        };
        contenders.push(Contender::new("old/sign", Some(home.size), "ms", sign));
    }
    let figures = alternate("signing", bench.options.rounds(ROUNDS), contenders);
    for site in &ends {
        bare::end_agent(&site.state.path().join("gnupg"));
        site.state.forget(&name)?;
    }
    figures
}

/// A client that signs as obs-signd does, with the keys of a site.
pub struct AgentClient<'a> {
    client: PathBuf,
    gpg_copr: PathBuf,
    file: PathBuf,
    state: &'a State,
}

impl<'a> AgentClient<'a> {
    pub fn new(bench: &Bench, site: &'a Site) -> Result<Self> {
        let gpg_copr = bench.scratch.join("gpg-copr");
        if !gpg_copr.exists() {
            symlink(BINARY, &gpg_copr)?;
        }
        Ok(Self { client: client()?, gpg_copr, file: package(bench)?, state: &site.state })
    }

    /// Makes one signature with the key of the identity `name`.
    pub fn sign(&self, name: &str) -> Result<()> {
        let mut command = Command::new(&self.client);
        service::environment(&mut command, self.state);
        command.env("GNUPGHOME", self.state.path().join("gnupg")).env("SIGND_GPG", &self.gpg_copr);
        command.env("SIGND_PHRASES", self.state.path().join("phrases"));
        service::stdout_of(command.args(["sign", name]).arg(&self.file)).map(drop)
    }
}

/// Writes the file to be signed and returns its path.
fn package(bench: &Bench) -> Result<PathBuf> {
    let file = bench.scratch.join("package");
    fs::write(&file, [b'x'; 4096])?;
    Ok(file)
}

/// Returns the path of the signing client, which cargo builds with the examples.
fn client() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let directory = program.parent().and_then(Path::parent).ok_or("a strange path")?;
    let client = directory.join("examples/signd-client");
    if client.exists() {
        return Ok(client);
    }
    Err(format!("{} is missing: cargo build --release --examples", client.display()).into())
}
