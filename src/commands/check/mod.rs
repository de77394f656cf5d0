//! `copr-keygen check`: one page that says whether this sign host is well, in the order in which an
//! operator would look, each failing line with its remedy. Without `--repair` nothing is changed; trial
//! signatures are made in staging, which is empty again afterwards.
//!
//! A section looks and judges, and returns findings. `repair` mends what they name as mendable, `page` words
//! them.

mod access;
mod agent;
mod cluster;
mod deep;
mod expiry;
mod finding;
mod gnupg;
mod homes;
mod host;
mod links;
mod owners;
mod page;
mod ping;
mod repair;
mod sealing;
mod settings;
mod signature;
mod signd;
mod signer;
mod space;
mod staging;
mod survey;
mod trust;
mod units;
mod verifiers;
mod who_signs;

use self::finding::Section;
use self::host::Host;
use self::page::Page;
use self::repair::settle;
use self::survey::Survey;
use keystore::interrupt;

use crate::cli::Check;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// What is to be said of the keys, by those who own them. What one section mends, the next one finds mended.
const OF_KEYS: &[fn(&Host, &Survey) -> Section] = &[
    space::section,
    homes::section,
    sealing::section,
    deep::section,
    links::section,
    agent::configuration,
    agent::running,
    signature::section,
    cluster::section,
    staging::section,
    trust::section,
];

/// Checks this host. What cannot be had is a line of the page, and so is a user who may not be one.
pub fn run(settings: Result<Settings>, options: &Check) -> Result<()> {
    let mut settings = match settings {
        Err(error) => return unconfigured(&[error], options),
        Ok(settings) if !settings.faults().is_empty() => {
            let faults = settings.faults().iter().cloned().map(Error::Settings);
            return unconfigured(&faults.collect::<Vec<_>>(), options);
        }
        Ok(settings) => settings,
    };
    if let Err(e) = settings.find_sealing_key() {
        log::warn!("{e}");
        settings.sealing_key_fault = Some(e.to_string());
    }
    if settings.sealing_key.is_some() {
        settings.cluster_fault = settings.find_cluster().err().map(|e| e.to_string());
    }
    report(&Host::new(&settings, options)?, options)
}

/// Shows the page. As root it looks at the system and gives the state back to its owner, then it becomes that owner for
/// everything about keys.
fn report(host: &Host, options: &Check) -> Result<()> {
    // What only root may see or do. Nothing is written as root but owners.
    let (units, access) = (units::section(host), access::section(host));
    let mut survey = Survey::default();
    let (owners, can_look) = owners::section(host, &mut survey)?;

    let mut page = Page::default();
    page.add(settings::section(host));
    page.add(gnupg::section(host));
    page.add(access);
    page.add(owners);
    page.add(space::random_numbers());
    for section in OF_KEYS.iter().filter(|_| can_look) {
        let found = section(host, &survey);
        let mut settled = settle(host, &mut survey, found);
        if host.who_signs.is_only_ours() {
            settled.excuse_obs_signd();
        }
        page.add(settled);
    }
    page.add(signer::section(host));
    page.add(signd::section(host));
    page.add(units);
    if can_look {
        page.add(expiry::section(host, &survey));
        page.add(verifiers::section(host, &survey));
    } else {
        let mut keys = Section::new("keys");
        keys.note(host.state().to_string_lossy(), "the keys were not looked at, see above");
        page.add(keys);
    }
    let shown = page.show(options);
    // What the page says is true, but whether the host is well is not known.
    interrupt::check(|| "not every key was tried, see above; run it again".into()).and(shown)
}

/// The page of a host whose settings are wrong: no other line could be trusted.
fn unconfigured(errors: &[Error], options: &Check) -> Result<()> {
    let mut page = Page::default();
    page.add(settings::failed(errors));
    // That the page has failing lines is said with an exit status of its own.
    match page.show(options) {
        Err(Error::Partly(_)) | Ok(()) => {
            let all: Vec<_> = errors.iter().map(Error::to_string).collect();
            Err(Error::Settings(all.join("; ")))
        }
        Err(other) => Err(other),
    }
}
