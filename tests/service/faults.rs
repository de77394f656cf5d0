//! Every external step fails once: gpg, its agent, the disk, descriptors, clients.
