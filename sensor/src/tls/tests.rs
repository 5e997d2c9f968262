use super::*;

fn mapped(file: FileId) -> Mapped {
    Mapped {
        file,
        name: format!("/lib/{file:?}"),
        path: PathBuf::from("/nowhere"),
    }
}

fn file(inode: u64) -> FileId {
    FileId::of_inode(inode)
}

fn processes(numbers: std::ops::Range<u32>) -> BTreeSet<u32> {
    numbers.collect()
}

#[test]
fn a_file_is_known_once_and_as_long_as_a_process_uses_it() {
    let mut libraries = Libraries::default();
    let uses = |process| match process {
        1 => Ok(vec![]),
        2 | 3 => Ok(vec![mapped(file(7))]),
        _ => Err(MapsError::Refused),
    };
    libraries.update(&processes(1..5), uses, 10);
    let status = libraries.status();
    assert_eq!(status.libraries.len(), 1);
    assert_eq!(status.libraries[0].processes, 2);
    assert_eq!(status.unreadable, 1);
    assert_eq!(libraries.unused(), []);
    libraries.update(&processes(1..3), uses, 10);
    assert_eq!(libraries.status().libraries[0].processes, 1);
    assert_eq!(libraries.unused(), []);
    libraries.update(&processes(1..2), uses, 10);
    assert_eq!(libraries.unused(), [file(7)]);
}

#[test]
fn a_process_is_looked_at_a_few_times_and_when_it_speaks_tls() {
    let looks = std::cell::Cell::new(0);
    let mut libraries = Libraries::default();
    let nothing = |_| {
        looks.set(looks.get() + 1);
        Ok(vec![])
    };
    for _ in 0..10 {
        libraries.update(&processes(1..2), nothing, 10);
    }
    assert_eq!(looks.get(), LOOKS);
    libraries.speaks_tls(1);
    assert_eq!(libraries.status().unseen, 1);
    libraries.update(&processes(1..2), nothing, 10);
    assert_eq!(looks.get(), LOOKS + 1);
    assert_eq!(libraries.status().unseen, 1);
    // It loaded the library late.
    libraries.speaks_tls(1);
    libraries.update(&processes(1..2), |_| Ok(vec![mapped(file(7))]), 10);
    assert_eq!(libraries.status().unseen, 0);
    assert_eq!(libraries.status().libraries.len(), 1);
}

#[test]
fn there_is_a_bound_for_files_and_for_looks_at_once() {
    let mut libraries = Libraries::default();
    let looks = std::cell::Cell::new(0);
    let one_each = |process| {
        looks.set(looks.get() + 1);
        Ok(vec![mapped(file(u64::from(process)))])
    };
    libraries.update(&processes(1..1001), one_each, LOOKS_AT_ONCE);
    assert_eq!(looks.get(), LOOKS_AT_ONCE);
    assert_eq!(libraries.status().libraries.len(), LIBRARIES_MAX);
    // The newest first: those that were not looked at yet.
    libraries.update(&processes(1..1001), one_each, 1000 - LOOKS_AT_ONCE);
    assert_eq!(looks.get(), 1000);
    assert_eq!(libraries.beyond, (1000 - LIBRARIES_MAX) as u64);
}
