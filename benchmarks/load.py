"""Many users at once on the page or the server, on the loopback address, with bounds on all.

Starts `janus-kit demo` or `janus-kit serve` with the embedded model, then lets 1, 8 and 40 users
send some jobs each, one after the other: pictures, and every eighth a question. One in five leaves
while its job runs, one in ten sends nonsense. Prints, and with -o writes, what became of the jobs,
how soon refusals came, whether the order was fair, and memory, threads and files of the process.
Exits with 1 and a sentence where a bar is missed: order, cap, time to a refusal, memory, log.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

CAP = 32
USERS = (1, 8, 40)
SOON = 2.0  # seconds within which a refusal has to come
GROWTH = 100  # MiB of memory, from the first stage of most users to the last
LONGEST = 900.0  # seconds of a whole stage


@dataclass
class Job:
    """One job as its user saw it; times in seconds since the stage began."""

    kind: str  # draw, ask, bad or leave
    sent: float
    ended: float = 0.0
    outcome: str = ""  # done, refused, rejected, left or broken
    seconds_to_refusal: float = 0.0


class Process:
    """The program under test, and what the system says of it."""

    def __init__(self, target: str) -> None:
        self.folder = tempfile.mkdtemp()
        self.log = Path(self.folder, "log.txt")
        command = [sys.executable, "-m", "janus_kit", "demo" if target == "page" else "serve"]
        environment = os.environ | {"TMPDIR": self.folder}
        self.process = subprocess.Popen(
            [*command, "--port", "0" if target == "server" else "7866", "--max-queue", str(CAP)],
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip().removesuffix("/v1").rstrip("/")
        assert self.url.startswith("http://127.0.0.1:"), self.log.read_text()

    def sample(self) -> dict[str, int]:
        place = Path("/proc", str(self.process.pid))
        status = (place / "status").read_text()
        wanted = ("VmRSS", "Threads")
        found = {n: int(re.findall(rf"{n}:\s+(\d+)", status)[0]) for n in wanted}
        return {
            "rss_mib": found["VmRSS"] // 1024,
            "threads": found["Threads"],
            "files_open": len(list((place / "fd").iterdir())),
        }

    def stop(self) -> tuple[int, int]:
        """SIGTERM; the exit code and the files that are left in the temporary folder."""
        self.process.terminate()
        code = self.process.wait(60)
        left = sum(p.is_file() for p in Path(self.folder).rglob("*")) - 1  # the log
        return code, left


async def page_job(client: httpx.AsyncClient, job: Job, seed: int) -> None:
    """A job over Gradio's HTTP interface: POST, then the events of its answer."""
    name = "draw" if job.kind != "ask" else "ask"
    pictures = 99 if job.kind == "bad" else 1
    data: list[Any] = ["four pizzas", "", pictures, str(seed), 1.5, 0.5, 0, False]
    if job.kind == "ask":
        data = [{"text": "hello", "files": []}, 8, 0]
    begun = time.monotonic()
    answer = await client.post(f"/gradio_api/call/{name}", json={"data": data})
    if answer.status_code in (503, 429):
        job.outcome, job.seconds_to_refusal = "refused", time.monotonic() - begun
        return
    if answer.status_code >= 400:
        job.outcome = "rejected"
        return
    place = f"/gradio_api/call/{name}/{answer.json()['event_id']}"
    async with client.stream("GET", place) as stream:
        event = ""
        async for line in stream.aiter_lines():
            if line.startswith("event:"):
                event = line.removeprefix("event:").strip()
            if line.startswith("data:") and event == "error":
                full = "queue is full" in line
                job.outcome = "refused" if full else "rejected"
                if full:
                    job.seconds_to_refusal = time.monotonic() - begun
            if event == "complete":
                job.outcome = "done"
            if event == "generating" and job.kind == "leave":
                job.outcome = "left"
                return


async def server_job(client: httpx.AsyncClient, job: Job, seed: int) -> None:
    """A job over OpenAI's protocol."""
    path = "/v1/chat/completions" if job.kind == "ask" else "/v1/images/generations"
    body: dict[str, Any] = {"prompt": "four pizzas", "seed": seed}
    if job.kind == "ask":
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    if job.kind == "bad":
        body["n"] = 99
    if job.kind == "leave":
        body |= {"stream": True, "partial_images": 3}
    begun = time.monotonic()
    async with client.stream("POST", path, json=body) as answer:
        if answer.status_code == 429:
            job.outcome, job.seconds_to_refusal = "refused", time.monotonic() - begun
            return
        if answer.status_code >= 400:
            job.outcome = "rejected"
            return
        if job.kind == "leave":
            await anext(answer.aiter_bytes())
            job.outcome = "left"
            return
        await answer.aread()
        job.outcome = "done"


async def stage(process: Process, target: str, users: int, each: int, seed: int) -> dict[str, Any]:
    """users at once; what became of their jobs."""
    draw = random.Random(seed)
    jobs: list[Job] = []
    health: list[float] = []
    waiting = 0
    begun = time.monotonic()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=process.url, timeout=LONGEST, limits=limits) as client:

        async def user(number: int) -> None:
            for place in range(each):
                turn = number * each + place
                kind = "ask" if turn % 8 == 7 else "draw"
                kind = "leave" if turn % 5 == 2 else "bad" if turn % 10 == 4 else kind
                job = Job(kind, time.monotonic() - begun)
                jobs.append(job)
                work = page_job if target == "page" else server_job
                try:
                    await work(client, job, draw.randrange(2**31))
                except httpx.HTTPError as error:
                    job.outcome = f"broken: {type(error).__name__}"
                job.ended = time.monotonic() - begun
                if job.outcome == "refused":  # as a polite client does, if an impatient one
                    await asyncio.sleep(0.5)

        async def watch() -> None:
            nonlocal waiting
            path = "/health" if target == "server" else "/gradio_api/startup-events"
            async with httpx.AsyncClient(base_url=process.url, timeout=60) as probe:
                while True:
                    sent = time.monotonic()
                    answer = await probe.get(path)
                    health.append(time.monotonic() - sent)
                    if target == "server":
                        waiting = max(waiting, answer.json()["waiting"])
                    await asyncio.sleep(0.25)

        watching = asyncio.create_task(watch())
        await asyncio.wait_for(asyncio.gather(*map(user, range(users))), LONGEST)
        watching.cancel()
    done = sorted(
        (j for j in jobs if j.outcome == "done" and j.kind == "draw"), key=lambda j: j.sent
    )
    # Who came clearly later must not be done clearly earlier.
    overtaken = sum(
        later.sent > first.sent + 0.5 and later.ended < first.ended - 0.5
        for i, first in enumerate(done)
        for later in done[i + 1 :]
    )
    refusals = [job.seconds_to_refusal for job in jobs if job.outcome == "refused"]
    asked = [j.ended - j.sent for j in jobs if j.kind == "ask" and j.outcome == "done"]
    drawn = [j.ended - j.sent for j in done]
    return {
        "users": users,
        "jobs": len(jobs),
        "seconds": round(time.monotonic() - begun, 1),
        "outcomes": dict(Counter(f"{job.kind} {job.outcome}" for job in jobs)),
        "refusal_seconds": _spread(refusals),
        "draw_seconds": _spread(drawn),
        "ask_seconds": _spread(asked),
        "health_seconds": _spread(health),
        "overtaken": overtaken,
        "waiting": waiting,
        **process.sample(),
    }


def missed(result: dict[str, Any]) -> list[str]:
    """The bars that a run has missed, a sentence each."""
    found = []
    if result["exit_code"] != 143 or result["files_left"]:
        found.append(f"it ended with {result['exit_code']} and left {result['files_left']} files")
    if result["log_lines"]:
        found.append(f"the log has {result['log_lines']} lines")
    for stage in result["stages"]:
        users = f"of {stage['users']} users"
        broken = [name for name in stage["outcomes"] if "broken" in name or name.endswith(" ")]
        if broken:
            found.append(f"{users} some got no answer: {', '.join(broken)}")
        if stage["overtaken"]:
            found.append(f"{users} {stage['overtaken']} were overtaken")
        if stage["waiting"] > CAP:
            found.append(f"{users} {stage['waiting']} jobs waited at once; {CAP} may")
        if (stage["refusal_seconds"] or {"max": 0})["max"] > SOON:
            found.append(f"{users} one was refused after {stage['refusal_seconds']['max']} s")
    crowds = [stage["rss_mib"] for stage in result["stages"] if stage["users"] == USERS[-1]]
    if crowds[-1] - crowds[0] > GROWTH:
        found.append(f"memory grew by {crowds[-1] - crowds[0]} MiB between equal stages")
    return found


def _spread(values: list[float]) -> dict[str, float] | None:
    ordered = sorted(values)
    if not ordered:
        return None
    middle, most = ordered[len(ordered) // 2], ordered[-1]
    return {"median": round(middle, 3), "max": round(most, 3), "of": len(ordered)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=("page", "server"), default="server")
    parser.add_argument("--rounds", type=int, default=1, help="of the stage with most users")
    parser.add_argument("--jobs", type=int, default=5, help="of each user")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    process = Process(given.target)
    stages = []
    result: dict[str, Any] = {"target": given.target, "queue": CAP, "cpus": os.cpu_count()}
    try:
        for number, users in enumerate((*USERS, *USERS[-1:] * (given.rounds - 1))):
            stages.append(asyncio.run(stage(process, given.target, users, given.jobs, number)))
            print(json.dumps(stages[-1]), flush=True)
    finally:
        code, left = process.stop()
    log = process.log.read_text()
    result |= {
        "stages": stages,
        "exit_code": code,
        "files_left": left,
        "tracebacks": log.count("Traceback"),
        "log_lines": len(log.splitlines()),
    }
    print(json.dumps({name: result[name] for name in ("exit_code", "files_left", "tracebacks")}))
    if log.strip():
        print(log[-2000:])
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if bars := missed(result):
        raise SystemExit("; ".join(bars))


if __name__ == "__main__":
    main()
