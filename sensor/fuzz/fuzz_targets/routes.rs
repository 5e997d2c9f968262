//! Templates of a configuration, paths that were asked for, and what is learned of
//! them: whatever they are, lessons are bounded and names valid.
#![no_main]

use honeyguide_proto::route::Template;
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use routes::{Lessons, Rules};
use sensor_common::{
    http::{PATH_LEN_MAX, shape},
    route::Path,
};

// Not from its crate, which builds the kernel programs.
#[allow(dead_code, reason = "not all of it is for this")]
#[path = "../../src/routes.rs"]
mod routes;

#[derive(Debug, Arbitrary)]
struct Input {
    templates: Vec<String>,
    paths: Vec<(Vec<u8>, u16)>,
    methods: [u32; 4],
}

/// Paths of one service at most.
const PATHS_MAX: usize = 64;

/// As the kernel gives it, zeros behind the path.
fn path(text: &[u8], learned: &Lessons) -> Option<Path> {
    let mut bytes = [0; PATH_LEN_MAX];
    let len = text.len().min(PATH_LEN_MAX);
    bytes[..len].copy_from_slice(&text[..len]);
    let shape = shape(&bytes, len, learned)?;
    assert!(shape.len as usize <= len);
    Some(Path {
        bytes,
        len: shape.len,
        is_whole: u32::from(shape.is_whole),
    })
}

fuzz_target!(|input: Input| {
    let templates: Vec<String> = input
        .templates
        .into_iter()
        .filter(|text| Template::new(text).is_ok())
        .take(routes::TEMPLATES_MAX)
        .collect();
    let rules = Rules::new(&templates).expect("each is valid");
    let mut own = Lessons::default();
    let paths: Vec<(Path, u64)> = input
        .paths
        .iter()
        .take(PATHS_MAX)
        .filter_map(|(text, requests)| Some((path(text, &own)?, u64::from(*requests) + 1)))
        .collect();
    let mut lessons = 0;
    while let Some(lesson) = rules.learn(&paths, &own) {
        own.extend(lesson);
        let now = own.iter().count();
        assert!(now > lessons, "nothing new is learned for ever");
        lessons = now;
    }
    for (path, _) in &paths {
        for method in input.methods {
            let route = rules.name(method, path, &own);
            assert!(!route.to_string().is_empty());
        }
    }
});
