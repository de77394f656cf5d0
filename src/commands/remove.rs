//! not there yet
use crate::cli::*;
use crate::error::*;
use crate::settings::Settings;
pub fn remove(_: &Settings, _: &Remove) -> Result<()> {
    Err(Error::Usage("not there yet".into()))
}
pub fn undo(_: &Settings, _: &Undo) -> Result<()> {
    Err(Error::Usage("not there yet".into()))
}
pub fn purge(_: &Settings, _: &Purge) -> Result<()> {
    Err(Error::Usage("not there yet".into()))
}
