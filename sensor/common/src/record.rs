//! The `#[repr(C)]` records of the maps shared with the kernel programs.
