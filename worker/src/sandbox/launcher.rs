//! The zygote launcher: puts on the image like a coat and becomes Python.
//!
//! Its root directory is the very filesystem that every cage has, so whatever a session imports
//! later comes from the same files at the same paths. Only `/opt/hearth`, with the boot code and
//! the zygote library, exists nowhere else.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::FdFlags;
use rustix::mount::{MountFlags, UnmountFlags};

use super::channel;
use super::message::{self, LauncherSettings, Reply};
use super::{boot, private, sys};

/// Where Python expects its control socket.
const CONTROL: i32 = 3;

/// Device nodes of the zygote, bound from the host.
const NODES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Runs the process. Must be the first thing that `main` does: no other thread may exist.
pub fn main() -> ! {
    let Err(error) = start();
    eprintln!("zygote launcher: {error}");
    sys::exit_now(1)
}

/// Becomes Python, or tells the worker why not.
fn start() -> io::Result<Infallible> {
    sys::close_from(3)?;
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    if control.as_raw_fd() != CONTROL {
        return Err(io::Error::other("descriptor 3 is taken"));
    }
    launch(&control).inspect_err(|error| {
        let refused = Reply::Refused {
            error: error.to_string(),
        };
        if let Err(error) = channel::send(&control, &message::encode(&refused), &[]) {
            eprintln!("zygote launcher: {error}");
        }
    })
}

fn launch(control: &OwnedFd) -> io::Result<Infallible> {
    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let packet = channel::receive(control)?.ok_or_else(gone)?;
    let settings: LauncherSettings = message::decode(&packet.bytes)?;
    let library = fs::read(&settings.library)
        .map_err(|error| named(&settings.library.display().to_string(), error))?;
    let root = Path::new(private::DIRECTORY).join("zygote");
    build_root(&settings, &root).map_err(|error| named("the zygote's root", error))?;
    boot::install(&root.join("opt/hearth"), &library)
        .map_err(|error| named("the boot files", error))?;
    enter(&root).map_err(|error| named("entering the zygote's root", error))?;
    rustix::io::fcntl_setfd(control, FdFlags::empty())?;
    Err(Command::new(boot::PYTHON)
        .args(boot::ARGUMENTS)
        .env_clear()
        .envs(boot::environment())
        .stdin(Stdio::null())
        .exec())
}

fn build_root(settings: &LauncherSettings, root: &Path) -> io::Result<()> {
    std::env::set_current_dir("/")?;
    private::enter()?;
    fs::create_dir(root)?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    let image = quiet | MountFlags::RDONLY;
    rustix::mount::mount(&settings.image, root, super::IMAGE_FILESYSTEM, image, None)?;
    let still = quiet | MountFlags::NOEXEC;
    rustix::mount::mount("proc", root.join("proc"), "proc", still, None)?;
    for (directory, options) in [
        ("dev", c"mode=755,size=64k"),
        ("run", c"mode=755,size=1m"),
        ("tmp", c"mode=1777,size=64m"),
        ("home/session", c"mode=755,size=64m"),
        ("opt/hearth", c"mode=755,size=64m"),
    ] {
        let flags = if directory == "dev" {
            MountFlags::NOSUID
        } else {
            quiet
        };
        rustix::mount::mount("tmpfs", root.join(directory), "tmpfs", flags, options)
            .map_err(|error| named(directory, error.into()))?;
    }
    for node in NODES {
        let target = root.join("dev").join(node);
        fs::write(&target, [])?;
        rustix::mount::mount_bind(Path::new("/dev").join(node), &target)?;
    }
    fs::create_dir(root.join("dev/shm"))?;
    std::os::unix::fs::symlink("/proc/self/fd", root.join("dev/fd"))
}

/// Makes `root` the root directory and forgets the old one.
fn enter(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

fn named(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
