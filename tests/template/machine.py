"""A real systemd that runs the units of a generated project: a machine of its own, of namespaces, without network."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.template.conftest import ROOT

CGROUPS = Path("/sys/fs/cgroup/systemd")

#: Units that the services lean on; all else of the distribution stays out, as it would touch the real machine.
_TARGETS = (
    *("basic", "local-fs", "multi-user", "network", "network-online", "paths"),
    *("shutdown", "slices", "sockets", "sysinit", "timers"),
)

#: Its root is in memory: /usr of this machine, /etc and /srv of its own. Python is where it is, for everybody to read.
_BOOT = r"""
set -e
root=$1; shift
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
cp -a "$root.files/." "$root/"
cd "$root"
mkdir -p usr proc sys dev/shm run tmp var/log var/lib root
chmod 1777 tmp
for link in bin sbin lib lib64; do ln -s "usr/$link" "$link"; done
mount --bind /usr usr
mount -t tmpfs tmpfs usr/lib/systemd/system
cp -a "$root.units/." usr/lib/systemd/system/
for path; do mkdir -p ".$path"; mount --bind "$path" ".$path"; done
mount --bind "$VENV" srv/shop/.venv
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
mkdir sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd,xattr cgroup sys/fs/cgroup/systemd
for device in null zero full random urandom tty; do touch "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s /proc/self/fd dev/fd
ip link set lo up
exec chroot . /usr/bin/env -i container=lxc PATH=/usr/sbin:/usr/bin \
    /lib/systemd/systemd --system --unit=multi-user.target
"""


class Machine:
    """The project shop in /srv/shop, and systemd as process 1."""

    package = ROOT

    def __init__(self, folder, project):
        self.root = folder / "machine"
        self.cgroup = CGROUPS / f"taskkit-{os.getpid()}"
        self.process = None
        for path in (self.root, folder / "machine.files", folder / "machine.units"):
            path.mkdir(mode=0o755)
        files = folder / "machine.files"
        shutil.copytree(project.path, files / "srv/shop", ignore=shutil.ignore_patterns("var", "__pycache__", ".env"))
        (files / "srv/shop/.venv").mkdir()
        (files / "etc/systemd/system").mkdir(parents=True)
        (files / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        for name in (
            "passwd",
            "group",
            "shadow",
            "gshadow",
            "nsswitch.conf",
            "ld.so.cache",
            "hosts",
            "pam.d",
            "security",
        ):
            source = Path("/etc", name)
            if source.is_dir():
                shutil.copytree(source, files / "etc" / name)
            elif source.exists():
                shutil.copy2(source, files / "etc" / name)
        shutil.copytree("/etc/alternatives", files / "etc/alternatives", symlinks=True)
        for target in _TARGETS:
            source = Path("/usr/lib/systemd/system", f"{target}.target")
            if source.exists():
                shutil.copy2(source, folder / "machine.units")
        for unit in ("dbus.service", "dbus.socket"):  # systemd-run asks by it
            shutil.copy2(Path("/usr/lib/systemd/system", unit), folder / "machine.units")
        wanted = folder / "machine.units/multi-user.target.wants"
        wanted.mkdir()
        (wanted / "dbus.socket").symlink_to("../dbus.socket")

    def boot(self):
        self.cgroup.mkdir()
        enter = f"echo $$ > {self.cgroup}/cgroup.procs && exec unshare --pid --mount --uts --ipc --net --cgroup --fork"
        interpreter = Path(os.path.realpath(sys.executable)).parents[1]
        shown = {str(ROOT), sys.prefix, str(interpreter)}
        self.process = subprocess.Popen(
            ["bash", "-c", f'{enter} --kill-child bash -c "$0" boot "$@"', _BOOT, str(self.root), *sorted(shown)],
            env={**os.environ, "VENV": sys.prefix},
            stdin=subprocess.DEVNULL,
        )
        self.until(lambda: "running" in self.says("systemctl", "is-system-running"), "systemd is up")

    @property
    def pid(self):
        """Of systemd, on this machine."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def command(self, *command):
        return [
            "nsenter",
            f"--target={self.pid}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--root",
            "--wd",
            *command,
        ]

    def run(self, *command):
        """Run a command there, as root; return what it printed."""
        done = subprocess.run(
            self.command(*command),
            env={"PATH": "/usr/sbin:/usr/bin", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{done.stdout}\n{self.logs()}"
        return done.stdout

    def says(self, *command):
        """What a command prints, however it ends."""
        try:
            return subprocess.run(self.command(*command), capture_output=True, text=True, timeout=60).stdout
        except (OSError, IndexError):  # not yet there
            return ""

    def show(self, unit, name):
        return self.says("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def path(self, name):
        """A file there, seen from here."""
        return Path(f"/proc/{self.pid}/root", name.lstrip("/"))

    def logs(self):
        return "\n".join(f"{file.name}: {file.read_text()[-3000:]}" for file in self.path("/var/log").glob("*.log"))

    def until(self, fact, what, seconds=120):
        deadline = time.monotonic() + seconds
        while not fact():
            assert self.process.poll() is None, "the machine is off"
            assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}\n{self.logs()}"
            time.sleep(0.1)

    def end(self):
        if self.process is not None:
            self.process.kill()  # takes systemd along (--kill-child), and with it everything in its namespace
            self.process.wait(timeout=30)
        deadline = time.monotonic() + 30
        while self.cgroup.exists() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(self.cgroup, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:  # its last process is about to end
                    time.sleep(0.05)


def machine_or_skip():
    """Say why there can be no machine here, by skipping."""
    missing = [name for name in ("unshare", "nsenter", "runuser", "ip") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing or not Path("/lib/systemd/systemd").exists():
        pytest.skip("a machine of its own needs root, systemd, unshare, nsenter and ip")
    if Path("/run/systemd/system").exists() or not os.access(CGROUPS, os.W_OK):
        pytest.skip("the cgroups of this machine belong to its own systemd")
