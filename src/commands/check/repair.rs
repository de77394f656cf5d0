//! Carries out `--repair` for every section. The repairs that findings name are made here and nowhere else.

use std::fs;

use super::expiry::SET_CLOCK;
use super::finding::{Mend, Remedy, Section};
use super::host::Host;
use super::survey::Survey;
use crate::error::{Error, Result};

fn carry_out(mend: Mend, host: &Host, survey: &mut Survey) -> Result<()> {
    match mend {
        Mend::Mode(path, mode) => keystore::set_mode(&path, mode),
        Mend::Part(path) => keystore::make_part(&path),
        Mend::Record(place) => {
            if let Some(home) = survey.homes.get_mut(place) {
                home.record = Some(host.inspector.rewrite_record(home)?);
            }
            Ok(())
        }
        Mend::Link(link) => host.inspector.mend_link(&link),
        Mend::AgentHome => host.inspector.prepare(),
        Mend::TrustDatabase(path) => {
            fs::remove_file(&path).map_err(|e| Error::io(format!("removing {}", path.display()), e))
        }
        Mend::Staging => host.inspector.clear_staging().map(drop),
    }
}

/// Carries out the repairs that the findings name. Without `--repair`, makes
/// `check --repair` their remedy instead.
pub fn settle(host: &Host, survey: &mut Survey, mut section: Section) -> Section {
    for finding in &mut section.findings {
        if !matches!(finding.remedy, Remedy::Repair(_)) {
            continue;
        }
        let Remedy::Repair(mend) = std::mem::replace(&mut finding.remedy, host.repair()) else {
            continue;
        };
        if !host.options.repair {
            continue;
        }
        match carry_out(mend, host, survey) {
            // The date of the certificate itself is in the future, so setting the clock is the remedy.
            Err(Error::Gpg(gpg::Error::Clock(words))) => {
                (finding.message, finding.remedy) = (words, SET_CLOCK.into());
            }
            result => finding.settle(result),
        }
    }
    section
}
