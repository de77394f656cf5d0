//! `copr-keygen token`: prints a new token as a line for the token file. Does not store it anywhere.

use super::output;
use crate::cli::Token;
use crate::error::Result;
use crate::http::tokens;

/// Prints a line for the token file, with a new token.
pub fn run(options: &Token) -> Result<()> {
    output::print(&tokens::new_line(&options.name, &options.scopes, options.pattern.as_ref())?)
}
