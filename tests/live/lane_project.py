"""Lanes on a real broker, and their workers, started by the command lines that `taskkit workers` prints."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import harness
from worker_processes import worker_environment

from django_taskkit.routing import Lane, formats, lanes
from django_taskkit.routing.processes import Place, worker_process
from django_taskkit.routing.workers import worker_plans

HERE = Path(__file__).resolve().parent


class Project:
    """Lanes on a broker of its own, and the processes that run them."""

    def __init__(self, broker, folder, **declared):
        self.broker = broker
        self.folder = folder
        self.settings = {}
        self.processes = {}
        made = lanes(
            broker=broker.settings["broker_url"],
            namespace="",
            prefix=f"{broker.queue}.",
            dead_letter_queue=None,
            **declared,
        )
        self.lanes = {name: Lane(**options) for name, options in made.pop("TASKKIT_LANES").items()}
        for lane in self.lanes:
            broker.queue_named(lane)
        options = {**made.pop("broker_transport_options"), **broker.settings.get("broker_transport_options", {})}
        broker.settings.update(made, broker_transport_options=options)

    @property
    def plans(self):
        app = self.broker.app()
        try:
            return {plan.name: plan for plan in worker_plans(app, lanes=self.lanes, cores=2)}
        finally:
            app.close()

    def files(self, name, **more):
        processes = [worker_process(plan, "lanes_app") for plan in self.plans.values()]
        return formats.files(name, processes, self.place(**more))

    def place(self, **more):
        return Place(project="shop", python=sys.executable, directory=str(HERE), **more)

    @property
    def env(self):
        return worker_environment(self.broker.settings, {"LANES_FOLDER": str(self.folder)})

    def start(self, *names):
        """Start the workers of these lanes, or all, by their scripts; return when they are ready."""
        scripts = self.files("shell")
        for name in names or self.plans:
            self.run(name, "sh", "-c", scripts[f"worker-{name}.sh"])
        for name in names or self.plans:
            harness.wait_until(lambda name=name: " ready." in self.log(name), 90, f"the worker {name} is ready")

    def run(self, name, *command):
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    def log(self, name):
        text = (self.folder / f"{name}.log").read_text(errors="replace")
        assert self.processes[name].poll() is None, f"{name} has ended:\n{text[-4000:]}"
        return text

    def send(self, task, lane, *args):
        app = self.broker.app()
        try:
            app.send_task(f"lanes_app.{task}", args, queue=f"{self.broker.queue}.{lane}")
        finally:
            app.close()

    def noted(self, what):
        """How often each task has done that, by its name."""
        files = self.folder.glob(f"{what}-*")
        return {file.name.partition("-")[2]: len(file.read_text()) for file in files}

    def wait_until(self, condition, message, timeout=90):
        return harness.wait_until(condition, timeout, message)

    def term(self, name):
        """What a supervisor does first: TERM to the one process that it has started."""
        os.kill(self.processes[name].pid, signal.SIGTERM)

    def end(self):
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextmanager
def projects(broker, folder):
    """``make(**lanes)``: a project; all that it starts is ended."""
    made = []

    def make(**declared):
        made.append(Project(broker, folder, **declared))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.end()
