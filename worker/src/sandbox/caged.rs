//! `caged`: the small, single-threaded process that owns every cage of a worker.
//!
//! libcontainer forks, so it must not live in the worker with its many threads; and code must not
//! go on running when the worker is stopped or dead, so what can kill it must not be the worker.
//! Without a fresh lease beat, or when the worker's end of the socket closes, `caged` kills every
//! cage and ends. Should it be unable to do even that, a kernel timer ends it, and the death
//! signal of each PID 1 does the rest.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use zygote::wire::SESSION_ID;

use super::cgroup::{Cgroups, Hierarchies};
use super::channel;
use super::layout;
use super::message::{self, CagedSettings, Make, Reply, Request};
use super::private;
use super::reaper::Reaper;
use super::spec::{self, Description};
use super::still_files::{self, Processors};
use super::sys;
use super::unified::HandDownError;
use super::user_namespace;

/// How long killed cages may take to be gone before `caged` ends without having tidied up.
const FAREWELL: Duration = Duration::from_secs(5);

// Directories of the process, all below `private::DIRECTORY`.
const IMAGE: &str = "image";
const BUNDLES: &str = "bundles";
const CONTAINERS: &str = "containers";
const DATA: &str = "data";
const STILL: &str = "still";

fn place(directory: &str) -> PathBuf {
    Path::new(private::DIRECTORY).join(directory)
}

/// Runs the process. Must be the first thing that `main` does: no other thread may exist.
pub fn main() -> ! {
    match start().and_then(Caged::run) {
        Ok(()) => sys::exit_now(0),
        Err(error) => {
            eprintln!("caged: {error}");
            sys::exit_now(1)
        }
    }
}

fn start() -> io::Result<Caged> {
    sys::close_from(3)?;
    std::env::set_current_dir("/")?;
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let packet = channel::receive(&control)?.ok_or_else(gone)?;
    let settings: CagedSettings = message::decode(&packet.bytes)?;
    match Caged::new(settings, packet.descriptors, &control) {
        Ok(caged) => {
            channel::send(&control, &message::encode(&Reply::Ready), &[])?;
            Ok(caged)
        }
        Err(error) => {
            channel::send(&control, &message::encode(&error.reply()), &[])?;
            Err(error.into())
        }
    }
}

/// Why there is no `caged`.
#[derive(Debug, thiserror::Error)]
enum SetUpError {
    #[error("the image cannot be mounted: {0}")]
    Image(rustix::io::Errno),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SetUpError {
    fn reply(&self) -> Reply {
        match self {
            Self::Image(error) => Reply::NoImage {
                error: io::Error::from(*error).to_string(),
            },
            Self::Io(error) => Reply::Refused {
                error: error.to_string(),
            },
        }
    }
}

impl From<SetUpError> for io::Error {
    fn from(error: SetUpError) -> Self {
        Self::other(error.to_string())
    }
}

/// Why a cage could not be made or removed.
#[derive(Debug, thiserror::Error)]
enum CageError {
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    #[error("{source}{}", cause(.source))]
    HandDown {
        #[from]
        source: HandDownError,
    },
    #[error("libcontainer: {0}")]
    Container(#[from] LibcontainerError),
    #[error("there is no cage of this name")]
    Unknown,
    #[error("a cage of this name exists")]
    Exists,
}

/// What is behind an error, as the end of a sentence.
fn cause(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default()
}

/// Names the step that an error belongs to.
trait During<T> {
    fn during(self, step: &'static str) -> Result<T, CageError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: &'static str) -> Result<T, CageError> {
        self.map_err(|error| CageError::Io(step, error.into()))
    }
}

struct Caged {
    settings: CagedSettings,
    control: OwnedFd,
    hierarchies: std::sync::Arc<Hierarchies>,
    image: PathBuf,
    processors: Processors,
    reaper: Reaper,
    cages: HashMap<String, Held>,
    dying: Vec<Dying>,
    /// None until the worker has started.
    last_beat_nanos: Option<u64>,
    // Held, not read: no other worker of this id may sweep before this process is gone.
    _lock: Vec<OwnedFd>,
}

struct Held {
    container: Container,
    cgroups: Cgroups,
    bundle: PathBuf,
    pid: Pid,
    pidfd: OwnedFd,
}

struct Dying {
    /// The request to answer; none when `caged` itself is ending.
    request: Option<u64>,
    held: Held,
}

impl Caged {
    fn new(
        settings: CagedSettings,
        lock: Vec<OwnedFd>,
        control: &OwnedFd,
    ) -> Result<Self, SetUpError> {
        let hierarchies = Hierarchies::discover()?;
        private::enter()?;
        for directory in [IMAGE, BUNDLES, CONTAINERS, DATA, STILL] {
            fs::create_dir(place(directory))?;
        }
        let image = place(IMAGE);
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount(
            &settings.image,
            &image,
            super::IMAGE_FILESYSTEM,
            flags,
            None,
        )
        .map_err(SetUpError::Image)?;
        Ok(Self {
            control: control.try_clone()?,
            hierarchies,
            image,
            processors: Processors::of_this_host()?,
            reaper: Reaper::of_this_process()?,
            cages: HashMap::new(),
            dying: Vec::new(),
            last_beat_nanos: None,
            _lock: lock,
            settings,
        })
    }

    /// Serves until the worker ends, and takes all cages along.
    fn run(mut self) -> io::Result<()> {
        let served = self.serve();
        self.end().and(served)
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let left = self.time_left();
            if left.is_zero() {
                eprintln!("caged: the worker is silent, all cages are killed");
                return Ok(());
            }
            sys::end_unless_called_again(left);
            let control_ready = self.wait(left)?;
            self.reap_dead()?;
            if !control_ready {
                continue;
            }
            let Some(packet) = channel::receive(&self.control)? else {
                return Ok(());
            };
            let (reply, descriptors) = match message::decode(&packet.bytes)? {
                Request::Beat { taken_nanos } => {
                    self.last_beat_nanos = self.last_beat_nanos.max(Some(taken_nanos));
                    continue;
                }
                Request::Destroy { id, cage } => match self.kill(&cage, Some(id)) {
                    Ok(()) => continue,
                    Err(error) => (
                        Reply::Failed {
                            id,
                            error: error.to_string(),
                        },
                        Vec::new(),
                    ),
                },
                Request::Make(make) => match self.make(&make) {
                    Ok((pid, descriptors)) => (Reply::Made { id: make.id, pid }, descriptors),
                    Err(error) => (
                        Reply::Failed {
                            id: make.id,
                            error: error.to_string(),
                        },
                        Vec::new(),
                    ),
                },
            };
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            channel::send(&self.control, &message::encode(&reply), &descriptors)?;
        }
    }

    /// Until the last beat is too old.
    fn time_left(&self) -> Duration {
        let now = message::now_nanos();
        let age = now.saturating_sub(self.last_beat_nanos.unwrap_or(now));
        self.settings
            .beat_ttl
            .saturating_sub(Duration::from_nanos(age))
    }

    /// Waits for a message (true), or for a killed cage, or for the time to pass.
    fn wait(&self, limit: Duration) -> io::Result<bool> {
        let mut watched = vec![PollFd::new(&self.control, PollFlags::IN)];
        watched.extend(
            self.dying
                .iter()
                .map(|one| PollFd::new(&one.held.pidfd, PollFlags::IN)),
        );
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        match rustix::event::poll(&mut watched, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(watched
            .first()
            .is_some_and(|control| !control.revents().is_empty()))
    }

    fn make(&mut self, make: &Make) -> Result<(u32, Vec<OwnedFd>), CageError> {
        if self.cages.contains_key(&make.cage) {
            return Err(CageError::Exists);
        }
        let data = place(DATA).join(&make.cage);
        let bundle = place(BUNDLES).join(&make.cage);
        let made = self.make_at(make, &data, &bundle);
        // The cage has its own mounts of both by now. With ours gone, no later cage
        // gets a copy of them, and the table of mounts that libcontainer reads stays short.
        let still = detach(&place(STILL)).during("detaching the files that stand still");
        let data = unmount(&data);
        let unmounted = still.and(data);
        match made.and_then(|made| unmounted.map(|()| made)) {
            Ok((held, directory)) => {
                let pid = held.pid.as_raw_nonzero().get().cast_unsigned();
                let pidfd = held.pidfd.try_clone().during("copying a descriptor")?;
                self.cages.insert(make.cage.clone(), held);
                Ok((pid, vec![pidfd, directory]))
            }
            Err(error) => {
                self.undo(&make.cage, &bundle);
                Err(error)
            }
        }
    }

    fn make_at(
        &self,
        make: &Make,
        data: &PathBuf,
        bundle: &PathBuf,
    ) -> Result<(Held, OwnedFd), CageError> {
        let directory = mount_data(make, data)?;
        let worker = &self.settings.worker;
        let cgroups = self.hierarchies.make_cage(worker, &make.cage)?;
        let namespace = user_namespace::make(make.uid_base).during("making the user namespace")?;
        // The process that enters it is a copy of this one, and so has this descriptor.
        let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
        let still = place(STILL);
        mount_still(&still).during("mounting a place for the files that stand still")?;
        still_files::write(&still, &self.processors, &make.limits)
            .during("writing the files that stand still")?;
        let spec = spec::spec(&Description {
            image: &self.image,
            data: data.as_path(),
            still: &still,
            cgroup: cgroups.path(),
            user_namespace: Path::new(&path),
            limits: make.limits,
            swap: self.hierarchies.swap(worker),
        });
        fs::create_dir(bundle).during("making the bundle")?;
        fs::write(bundle.join("config.json"), spec.to_string()).during("writing the bundle")?;
        let mut container = ContainerBuilder::new(make.cage.clone(), SyscallType::default())
            .with_root_path(place(CONTAINERS))?
            .with_executor(self.reaper.clone())
            .as_init(bundle)
            .with_systemd(false)
            .with_detach(true)
            .build()?;
        container.start()?;
        let pid = container.pid().and_then(|pid| Pid::from_raw(pid.as_raw()));
        let pid = pid.ok_or(CageError::Unknown)?;
        let pidfd =
            rustix::process::pidfd_open(pid, PidfdFlags::empty()).during("opening PID 1")?;
        Ok((
            Held {
                container,
                cgroups,
                bundle: bundle.clone(),
                pid,
                pidfd,
            },
            directory,
        ))
    }

    /// Removes what a failed [`make`](Self::make) left. libcontainer may even leave a process that
    /// waits for ever.
    fn undo(&self, cage: &str, bundle: &PathBuf) {
        let known = |pid: Pid| {
            let dying = self.dying.iter().map(|one| &one.held);
            self.cages.values().chain(dying).any(|held| held.pid == pid)
        };
        let me = std::process::id();
        let children = fs::read_to_string(format!("/proc/{me}/task/{me}/children"));
        let children = children.unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        for child in children
            .filter_map(Pid::from_raw)
            .filter(|&pid| !known(pid))
        {
            let killed = rustix::process::kill_process(child, Signal::KILL);
            if killed.is_ok() {
                report(rustix::process::waitpid(Some(child), WaitOptions::empty()));
            }
        }
        let cgroups = self.hierarchies.cage(&self.settings.worker, cage);
        report(cgroups.remove());
        for leftover in [bundle, &place(CONTAINERS).join(cage)] {
            if leftover.exists() {
                report(fs::remove_dir_all(leftover));
            }
        }
    }

    /// Sends the cage's PID 1 to its death; [`reap_dead`](Self::reap_dead) does the rest once it is dead.
    fn kill(&mut self, cage: &str, request: Option<u64>) -> Result<(), CageError> {
        let held = self.cages.remove(cage).ok_or(CageError::Unknown)?;
        // On version 1 a frozen process does not even die.
        let thawed = held.cgroups.thaw();
        let killed = rustix::process::pidfd_send_signal(&held.pidfd, Signal::KILL);
        self.dying.push(Dying { request, held });
        thawed.during("thawing")?;
        match killed {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            killed => killed.during("killing PID 1"),
        }
    }

    /// Removes the cages whose PID 1 has ended, and with it every process inside.
    fn reap_dead(&mut self) -> io::Result<()> {
        let mut index = 0;
        while let Some(dying) = self.dying.get(index) {
            match rustix::process::waitpid(Some(dying.held.pid), WaitOptions::NOHANG)? {
                None => index += 1,
                Some(_) => {
                    let Dying { request, held } = self.dying.swap_remove(index);
                    let removed = remove(held);
                    let Some(id) = request else { continue };
                    let reply = match removed {
                        Ok(()) => Reply::Gone { id },
                        Err(error) => Reply::Failed {
                            id,
                            error: error.to_string(),
                        },
                    };
                    channel::send(&self.control, &message::encode(&reply), &[])?;
                }
            }
        }
        Ok(())
    }

    /// Kills every cage.
    fn end(mut self) -> io::Result<()> {
        sys::end_unless_called_again(FAREWELL);
        for dying in &mut self.dying {
            dying.request = None;
        }
        let names: Vec<String> = self.cages.keys().cloned().collect();
        for name in names {
            report(self.kill(&name, None));
        }
        let deadline = message::now_nanos() + u64::try_from(FAREWELL.as_nanos()).unwrap_or(0);
        while !self.dying.is_empty() && message::now_nanos() < deadline {
            let watched = self
                .dying
                .iter()
                .map(|one| PollFd::new(&one.held.pidfd, PollFlags::IN));
            let limit = Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            rustix::event::poll(&mut watched.collect::<Vec<_>>(), Some(&limit))?;
            self.reap_dead()?;
        }
        Ok(())
    }
}

/// Mounts a session's filesystem and hands its files to the session's user.
fn mount_data(make: &Make, target: &PathBuf) -> Result<OwnedFd, CageError> {
    fs::create_dir(target).during("making the mount point of the data filesystem")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    let options = match make.discard {
        true => c"noinit_itable,nobarrier,discard",
        false => c"noinit_itable,nobarrier",
    };
    // Without the first option the kernel would fill all inode tables in the background, without
    // the second every `fsync` inside would wait for the host's disk. Nothing here outlives the host.
    rustix::mount::mount(&make.data, target, "ext4", flags, options)
        .during("mounting the data filesystem")?;
    let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(target, open, Mode::empty()).during("opening the data filesystem")?;
    rustix::fs::unlinkat(&directory, "lost+found", AtFlags::REMOVEDIR)
        .during("emptying the data filesystem")?;
    let id = make.uid_base + SESSION_ID;
    layout::lay_out(&directory, (id, id)).during("laying out the data filesystem")?;
    Ok(directory)
}

/// Mounts an empty filesystem for the files of one cage. In one of all cages, the numbers of its files would
/// tell how many cages there were.
fn mount_still(target: &Path) -> rustix::io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", target, "tmpfs", flags, c"mode=755,size=16m")
}

fn detach(target: &Path) -> rustix::io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH) {
        // It was never mounted.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        unmounted => unmounted,
    }
}

fn unmount(target: &PathBuf) -> Result<(), CageError> {
    detach(target).during("detaching the data filesystem")?;
    match fs::remove_dir(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.during("removing the mount point of the data filesystem"),
    }
}

/// Removes the remains of a cage without processes.
fn remove(mut held: Held) -> Result<(), CageError> {
    held.container.delete(true)?;
    held.cgroups.remove().during("removing the cgroups")?;
    fs::remove_dir_all(&held.bundle).during("removing the bundle")
}

/// Tells about a failure that nothing can be done about.
fn report<T, E: std::fmt::Display>(result: Result<T, E>) {
    if let Err(error) = result {
        eprintln!("caged: {error}");
    }
}
