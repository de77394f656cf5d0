//! `copr-keygen check`: one page that says whether this sign host is well, in the order in which an
//! operator would look, each failing line with its remedy. Without `--repair` nothing is changed; trial
//! signatures are made in staging, which is empty again afterwards.

mod access;
mod agent;
mod configuration;
mod credential;
mod deep;
mod entropy;
mod expiry;
mod homes;
mod host;
mod links;
mod owners;
mod page;
mod ping;
mod programs;
mod sealing;
mod sign_conf;
mod signd;
mod space;
mod staging;
mod trust;
mod units;

use nix::unistd::geteuid;

use self::homes::Survey;
use self::host::Host;
use self::page::{Page, Section};
pub use self::sign_conf::SignConf;
use crate::cli::Check;
use crate::error::{Error, Result};
use crate::privileges;
use crate::settings::Settings;
use keystore::Inspector;
use keystore::interrupt;

/// Checks this host. As root it looks at the system and gives the state back to its owner, then it
/// becomes that owner for everything about keys.
pub fn run(settings: &Settings, options: &Check) -> Result<()> {
    let host = Host {
        settings,
        options,
        inspector: Inspector::new(&settings.keystore()?, settings.gnupg()?),
        owner: host::owner(settings),
        as_root: geteuid().is_root(),
    };
    // What only root may see or do. Nothing is written as root but owners.
    let (units, access) = (units::section(&host), access::section(&host));
    let sign_conf = SignConf::read(&options.sign_conf);
    let mut owners = Section::new("owners and modes");
    let exists = owners::state_exists(&host, &mut owners);
    if exists && host.as_root && options.repair {
        owners::give_back(&host, &mut owners);
        privileges::become_owner(host.state())?;
    }
    let mut survey = Survey::default();
    // Root looks, but what is mended is mended by the owner.
    let only_looks = host.as_root && !options.repair;
    let may_look = exists && (only_looks || owners::is_owner(&host, &mut owners));
    let is_sound = may_look && owners::parts(&host, &mut owners);
    if is_sound {
        survey = Survey::take(&host);
        owners::homes(&host, &survey, &mut owners);
    }
    if exists {
        privileges::become_owner(host.state())?;
    }
    let can_look = is_sound && owners::is_owner(&host, &mut owners);

    let mut page = Page::default();
    page.add(configuration::section(&host));
    page.add(programs::section(&host));
    page.add(access);
    page.add(owners);
    page.add(entropy::section());
    if can_look {
        page.add(space::section(&host));
        page.add(homes::section(&host, &mut survey));
        page.add(sealing::section(&host, &survey));
        if options.deep {
            page.add(deep::section(&host, &mut survey));
        }
        page.add(links::section(&host, &survey));
        page.add(agent::section(&host, sign_conf.as_ref().ok()));
        page.add(staging::section(&host));
        page.add(trust::section(&host, &survey));
    }
    page.add(signd::section(&host, &sign_conf));
    page.add(units);
    if can_look {
        page.add(expiry::section(&host, &survey)?);
    } else {
        let mut keys = Section::new("keys");
        keys.note(host.state().to_string_lossy(), "the keys were not looked at, see above");
        page.add(keys);
    }
    let shown = page.show(options.json);
    // What the page says is true, but whether the host is well is not known.
    interrupt::check(|| "not every key was tried, see above; run it again".into()).and(shown)
}

/// The page of a host whose settings are wrong: no other line could be trusted.
pub fn unconfigured(errors: &[Error], options: &Check) -> Result<()> {
    let mut page = Page::default();
    page.add(configuration::failed(errors));
    // That the page has failing lines is said with an exit status of its own.
    match page.show(options.json) {
        Err(Error::Partly(_)) | Ok(()) => {
            let all: Vec<_> = errors.iter().map(Error::to_string).collect();
            Err(Error::Settings(all.join("; ")))
        }
        Err(other) => Err(other),
    }
}
