//! What comes out is a certificate that every verifier takes.
