//! `copr-keygen check`: prints one page that says whether this sign host is well. The lines are in the order
//! in which an operator would look, and each failing line has a remedy. Without `--repair` nothing is
//! changed; trial signatures are made in staging, which is empty again afterwards.
//!
//! Each section inspects one thing and returns findings. `repair` carries out the repairs that findings name,
//! and `page` prints the findings.

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

/// The sections about keys, which run as the owner of the state. What one section
/// repairs, the next one finds repaired.
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

/// Checks this host and prints the page. Something that cannot be inspected becomes a line of the page, and
/// so does being started as the wrong user.
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

/// Collects and prints the page. As root, it inspects the system, and with `--repair` gives the state back to
/// its owner. It then becomes that owner for all sections about keys.
fn report(host: &Host, options: &Check) -> Result<()> {
    // Only root may see or do these things. As root, nothing but the owners of files is changed.
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
    // After an interruption the page is true, but it does not show whether the host is well.
    interrupt::check(|| "not every key was tried, see above; run it again".into()).and(shown)
}

/// Prints the page of a host whose settings are wrong. It has no other section, as none could be trusted.
fn unconfigured(errors: &[Error], options: &Check) -> Result<()> {
    let mut page = Page::default();
    page.add(settings::failed(errors));
    // Wrong settings have an exit status of their own, in place of that for failing lines.
    match page.show(options) {
        Err(Error::Partly(_)) | Ok(()) => {
            let all: Vec<_> = errors.iter().map(Error::to_string).collect();
            Err(Error::Settings(all.join("; ")))
        }
        Err(other) => Err(other),
    }
}
