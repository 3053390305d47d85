//! A library that is loaded before the system's (`LD_PRELOAD`) and makes a call fail that would have succeeded. Built by
//! the test, which is no part of it.
//!
//! `TIDELOG_FAULT` says what fails: `<calls> <part of a path> <n> <how>`, with a tabulator in between. Of the calls
//! (`sync`, `hint` or `read@<position>`; `any` of the first two) on files whose path has that part, the n-th fails: `error`
//! answers EIO and does nothing; `kill` does nothing and ends the process there and then. Others mind no n:
//! `kill-if-failed` ends the process when the system's own call has failed, `tell` does nothing. What was done, and all
//! that is to be told, is appended to the file that `TIDELOG_FAULT_LOG` names.

use std::{
    env,
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fs,
    io::Write,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
    fn kill(process: c_int, signal: c_int) -> c_int;
    fn getpid() -> c_int;
}

/// `RTLD_NEXT`: the definition behind this library's.
const NEXT: *mut c_void = -1_isize as *mut c_void;
const EIO: c_int = 5;
const SIGKILL: c_int = 9;

struct Plan {
    calls: String,
    part: String,
    nth: u64,
    how: String,
    seen: AtomicU64,
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let read = || {
        let text = env::var("TIDELOG_FAULT").ok()?;
        let mut words = text.split('\t').map(str::to_owned);
        let (calls, part, nth, how) = (words.next()?, words.next()?, words.next()?, words.next()?);
        Some(Plan { calls, part, nth: nth.parse().ok()?, how, seen: AtomicU64::new(0) })
    };
    PLAN.get_or_init(read).as_ref()
}

fn path_of(file: c_int) -> String {
    fs::read_link(format!("/proc/self/fd/{file}")).map_or_else(|_| String::new(), |path| path.display().to_string())
}

fn tell(calls: &str, path: &str) {
    let Some(log) = env::var_os("TIDELOG_FAULT_LOG") else { return };
    let open = fs::OpenOptions::new().append(true).create(true).open(Path::new(&log));
    let _ = open.and_then(|mut file| writeln!(file, "{calls}\t{path}"));
}

/// Ends the process as `kill -9` would.
fn die() -> ! {
    // SAFETY: takes two numbers.
    unsafe { kill(getpid(), SIGKILL) };
    loop {
        std::thread::yield_now();
    }
}

/// Runs the system's own call, unless it is the one that is to fail.
fn run(calls: &str, file: c_int, system: impl FnOnce() -> isize) -> isize {
    let meant = |plan: &&Plan| plan.calls == calls || plan.calls == "any";
    let Some(plan) = plan().filter(meant) else { return system() };
    let path = path_of(file);
    if !path.contains(&plan.part) {
        return system();
    }
    if plan.how == "tell" {
        tell(calls, &path);
        return system();
    }
    if plan.how == "kill-if-failed" {
        let answer = system();
        if answer < 0 {
            tell(calls, &path);
            die();
        }
        return answer;
    }
    if plan.seen.fetch_add(1, Ordering::SeqCst) + 1 != plan.nth {
        return system();
    }
    tell(calls, &path);
    if plan.how == "kill" {
        die();
    }
    // SAFETY: the thread's own error number.
    unsafe { *__errno_location() = EIO };
    -1
}

/// The system's function of that name.
fn next<F: Copy>(name: &CStr) -> F {
    // SAFETY: takes a name; the answer is a function of the type that the caller has declared for that name.
    unsafe {
        let found = dlsym(NEXT, name.as_ptr());
        assert!(!found.is_null() && size_of::<F>() == size_of::<*mut c_void>());
        std::mem::transmute_copy(&found)
    }
}

type Sync = unsafe extern "C" fn(c_int) -> c_int;
type SyncRange = unsafe extern "C" fn(c_int, i64, i64, c_uint) -> c_int;
type Read = unsafe extern "C" fn(c_int, *mut c_void, usize, i64) -> isize;

/// # Safety
/// As the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(file: c_int) -> c_int {
    // SAFETY: called as we are.
    run("sync", file, || unsafe { next::<Sync>(c"fsync")(file) as isize }) as c_int
}

/// # Safety
/// As the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(file: c_int) -> c_int {
    // SAFETY: called as we are.
    run("sync", file, || unsafe { next::<Sync>(c"fdatasync")(file) as isize }) as c_int
}

/// # Safety
/// As the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync_file_range(file: c_int, position: i64, len: i64, flags: c_uint) -> c_int {
    // SAFETY: called as we are.
    run("hint", file, || unsafe { next::<SyncRange>(c"sync_file_range")(file, position, len, flags) as isize }) as c_int
}

/// # Safety
/// As the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(file: c_int, buffer: *mut c_void, len: usize, position: i64) -> isize {
    // SAFETY: called as we are.
    let system = || unsafe { next::<Read>(c"pread64")(file, buffer, len, position) };
    match plan() {
        Some(plan) if plan.calls.starts_with("read@") => run(&format!("read@{position}"), file, system),
        _ => system(),
    }
}
