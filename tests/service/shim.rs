//! Small programs in C, for failures that neither a shell script nor a misplaced file can cause. They are
//! compiled with the compiler that Rust links with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::host::{Host, eventually};

/// A library that is preloaded into a program. It logs each fsync(2), holds up those of one path, and makes
/// those of another fail. It also makes one directory unreadable.
const DISK: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void at(char *to, const char *name) {
    snprintf(to, 4096, "%s/%s", getenv("SHIM_DIR"), name);
}

/* Whether the file `name` in SHIM_DIR holds this path. */
static int names(const char *name, const char *path) {
    char file[4096], found[4096];
    int before = errno; /* of which readdir(3) makes use */
    at(file, name);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    errno = before;
    if (fd < 0) return 0;
    ssize_t count = read(fd, found, sizeof found - 1);
    close(fd);
    found[count > 0 ? count : 0] = 0;
    return strcmp(found, path) == 0;
}

static void note(const char *what, const char *path) {
    char file[4096], line[8192];
    at(file, "log");
    int fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int length = snprintf(line, sizeof line, "%s %s\n", what, path);
    if (write(fd, line, length) != length) abort();
    close(fd);
}

static void path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    path[length > 0 ? length : 0] = 0;
}

struct dirent64 *readdir64(DIR *directory) {
    char path[4096];
    path_of(dirfd(directory), path);
    if (names("unreadable", path)) {
        errno = EIO;
        return NULL;
    }
    struct dirent64 *(*real)(DIR *) = dlsym(RTLD_NEXT, "readdir64");
    return real(directory);
}

struct dirent *readdir(DIR *directory) {
    return (struct dirent *)readdir64(directory); /* the same on 64 bits */
}

int fsync(int fd) {
    char path[4096];
    path_of(fd, path);
    note("begin", path);
    while (names("hold", path)) usleep(5000);
    if (names("fail", path)) {
        note("failed", path);
        errno = EIO;
        return -1;
    }
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    int result = real(fd);
    note("end", path);
    return result;
}
"#;

/// A program that waits for a signal. Run as `hold PID`, it traces that process until its own stdin ends. A
/// traced process that has been killed stays until its tracer lets it go, and whoever waits for it has to
/// wait as well. A process that waits for a dead disk inside the kernel looks the same.
const STUCK: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count == 3 && strcmp(arguments[1], "hold") == 0) {
        if (ptrace(PTRACE_SEIZE, atoi(arguments[2]), 0, 0) != 0) {
            perror("ptrace");
            return 1;
        }
        puts("held");
        fflush(stdout);
        getchar();
        return 0;
    }
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    char file[4096];
    /* Beside the program, under a name that is whole when it is there. */
    snprintf(file, sizeof file, "%s.pid.new", arguments[0]);
    FILE *out = fopen(file, "w");
    fprintf(out, "%d", getpid());
    fclose(out);
    char name[4096];
    snprintf(name, sizeof name, "%s.pid", arguments[0]);
    rename(file, name);
    for (;;) pause();
}
"#;

fn compile(source: &str, into: &Path, options: &[&str]) {
    let code = into.with_extension("c");
    fs::write(&code, source).unwrap();
    let output = Command::new("cc").args(options).arg("-o").arg(into).arg(&code).output();
    let output = output.unwrap_or_else(|e| panic!("cc, which Rust needs too: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Controls the disk as the programs of a host see it.
pub struct Disk {
    library: PathBuf,
    directory: PathBuf,
}

impl Disk {
    /// Applies to everything that is started on `host` from now on.
    pub fn of(host: &mut Host) -> Self {
        let directory = host.scratch().join("fsync");
        fs::create_dir(&directory).unwrap();
        let library = directory.join("shim.so");
        compile(DISK, &library, &["-shared", "-fPIC", "-ldl"]);
        let shim = Self { library, directory };
        host.set("LD_PRELOAD", shim.library.display());
        host.set("SHIM_DIR", shim.directory.display());
        shim
    }

    /// From now on, fsync(2) of `path` waits.
    pub fn hold(&self, path: &Path) {
        self.name("hold", path);
    }

    /// Lets the calls that wait go on.
    pub fn release(&self) {
        fs::remove_file(self.directory.join("hold")).unwrap();
    }

    /// From now on, fsync(2) of `path` fails.
    pub fn fail(&self, path: &Path) {
        self.name("fail", path);
    }

    /// Lets fsync(2) work again.
    pub fn heal(&self) {
        fs::remove_file(self.directory.join("fail")).unwrap();
    }

    /// From now on, the directory `path` cannot be read.
    pub fn make_unreadable(&self, path: &Path) {
        self.name("unreadable", path);
    }

    /// Lets the directory be read again.
    pub fn make_readable(&self) {
        fs::remove_file(self.directory.join("unreadable")).unwrap();
    }

    fn name(&self, what: &str, path: &Path) {
        let fresh = self.directory.join("fresh");
        fs::write(&fresh, path.to_str().unwrap()).unwrap();
        fs::rename(fresh, self.directory.join(what)).unwrap();
    }

    /// Returns the events of fsync(2) so far, each as `begin`, `end` or `failed`, and the path.
    pub fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns how many events of this kind there have been for `path`.
    pub fn count(&self, what: &str, path: &Path) -> usize {
        let line = format!("{what} {}", path.display());
        self.log().iter().filter(|found| **found == line).count()
    }
}

/// A program that cannot be killed once it is held.
pub struct Stuck(PathBuf);

impl Stuck {
    pub fn new(host: &Host) -> Self {
        let path = host.scratch().join("stuck");
        compile(STUCK, &path, &[]);
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Waits until the program runs, and holds it. Returns its process ID, and the process that holds it
    /// until the stdin of that process ends.
    pub fn hold(&self) -> (u32, Child) {
        let pid = self.0.with_extension("pid");
        let pid: u32 = eventually("the program to run", || {
            fs::read_to_string(&pid).ok().and_then(|pid| pid.parse().ok())
        });
        let mut holder = Command::new(&self.0);
        holder.args(["hold", &pid.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = holder.spawn().unwrap();
        let mut line = String::new();
        let out = holder.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        assert_eq!(line, "held\n");
        (pid, holder)
    }
}
