//! not there yet
use crate::cli::*;
use crate::error::*;
use crate::settings::Settings;
pub fn run(_: &Settings, _: &Prolong) -> Result<()> {
    Err(Error::Usage("not there yet".into()))
}
