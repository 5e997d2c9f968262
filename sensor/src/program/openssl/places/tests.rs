use proptest::prelude::*;

use super::*;

/// Some program, of which every machine has one.
fn program() -> Vec<u8> {
    std::fs::read("/bin/true").unwrap()
}

#[test]
fn another_file_has_no_places() {
    let error = places(&program()).unwrap_err();
    assert!(
        matches!(error, PlacesError::NoFunction("SSL_do_handshake")),
        "{error}"
    );
    assert!(matches!(places(b"#!/bin/sh"), Err(PlacesError::Elf(_))));
}

/// Code in one segment, of which addresses are offsets.
#[cfg(target_arch = "x86_64")]
fn library<'a>(code: &'a [u8], functions: &[(&'a str, u64)]) -> Library<'a> {
    Library {
        data: code,
        functions: functions.iter().copied().collect(),
        segments: vec![(0, 0, code.len() as u64)],
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_function_that_is_called_is_found_if_it_begins_well() {
    // sub $8, %rsp; call 0x10
    let caller = [0x48, 0x83, 0xec, 0x08, 0xe8, 0x07, 0, 0, 0];
    let inner = |begin: &[u8]| {
        let mut code = caller.to_vec();
        code.resize(16, 0x90);
        code.extend(begin);
        library(&code, &[("SSL_read", 0)]).inner_function("SSL_read")
    };
    // push %r13; push %rbx
    assert_eq!(inner(&[0x41, 0x55]), Some(16));
    assert_eq!(inner(&[0x53]), Some(16));
    // endbr64; push %rbx
    assert_eq!(inner(&[0xf3, 0x0f, 0x1e, 0xfa, 0x53]), Some(20));
    // sub $8, %rsp
    assert_eq!(inner(&caller[..4]), None);
    // endbr64; sub $8, %rsp
    assert_eq!(
        inner(&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08]),
        None
    );
    // Nothing is called before it returns.
    let returns = [0x48, 0x83, 0xc4, 0x08, 0xc3, 0xe8, 0, 0, 0, 0, 0x53];
    let returns = library(&returns, &[("SSL_read", 0)]);
    assert_eq!(returns.inner_function("SSL_read"), None);
    assert_eq!(returns.inner_function("SSL_write"), None);
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((0usize..4096, any::<u8>()), 0..20),
        len in 0usize..40_000,
    ) {
        let mut data = program();
        for (at, byte) in changes {
            let at = at % data.len();
            data[at] = byte;
        }
        data.truncate(len);
        let _ = places(&data);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn no_code_panics(code in prop::collection::vec(any::<u8>(), 0..200), at: u64) {
        let library = library(&code, &[("SSL_read", 0), ("SSL_write", at)]);
        let _ = library.inner_function("SSL_read");
        let _ = library.inner_function("SSL_write");
        let _ = library.landing(at);
    }
}
