//! not there yet
use crate::cli::*;
use crate::error::*;
use crate::settings::Settings;
pub fn backup(_: &Settings, _: &Backup) -> Result<()> {
    Err(Error::Usage("not there yet".into()))
}
pub fn restore(_: &Settings, _: &Restore) -> Result<()> {
    Err(Error::Usage("not there yet".into()))
}
