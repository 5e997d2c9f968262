//! What disturbs others: programs of this binary that are told how much to do.

use std::{
    fs::OpenOptions,
    hint::black_box,
    io::BufRead,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// A turn of computing and sleeping.
const TURN: Duration = Duration::from_millis(10);
/// Bytes of a synchronous write.
const WRITE_LEN: usize = 8 << 10;
/// Size of a file that is written to.
const FILE_LEN: u64 = 16 << 20;

/// A level that lines of standard input set; ends the program with it.
fn told() -> Arc<AtomicU64> {
    let level = Arc::new(AtomicU64::new(0));
    let set = Arc::clone(&level);
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let value: f64 = line.trim().parse().unwrap_or(0.0);
            set.store(value.to_bits(), Relaxed);
        }
        std::process::exit(0);
    });
    level
}

/// Computes for the share of the time that it is told.
pub fn hog() -> Result<()> {
    let level = told();
    loop {
        let busy = TURN.mul_f64(f64::from_bits(level.load(Relaxed)).clamp(0.0, 1.0));
        let begin = Instant::now();
        let mut x = 1u64;
        while begin.elapsed() < busy {
            for _ in 0..1000 {
                x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
        thread::sleep(TURN.saturating_sub(begin.elapsed()));
    }
}

/// Writes and waits for the disk, as often a second as it is told, in four threads.
pub fn writer(folder: &Path) -> Result<()> {
    let level = told();
    let mut threads = Vec::new();
    for number in 0..4u64 {
        let level = Arc::clone(&level);
        let path = folder.join(format!("stormy-{number}"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)?;
        file.set_len(FILE_LEN)?;
        threads.push(thread::spawn(move || -> Result<()> {
            let mut at = 0;
            loop {
                let per_sec = f64::from_bits(level.load(Relaxed)) / 4.0;
                if per_sec < 0.1 {
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
                let begin = Instant::now();
                file.write_all_at(&[number as u8; WRITE_LEN], at)?;
                file.sync_data()?;
                at = (at + WRITE_LEN as u64) % FILE_LEN;
                let pause = Duration::from_secs_f64(1.0 / per_sec);
                thread::sleep(pause.saturating_sub(begin.elapsed()));
            }
        }));
    }
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a writer panicked"))??;
    }
    Ok(())
}
