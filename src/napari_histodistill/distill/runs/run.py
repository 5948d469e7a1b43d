"""The training loop: from a run's folder to a student in it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.distill.pairs.enlarging import why_unlike_start
from napari_histodistill.distill.runs.checkpoints import (
    BEST,
    LAST,
    Mark,
    read_checkpoint,
    write_checkpoint,
)
from napari_histodistill.distill.runs.events import TrainingReport, append_event
from napari_histodistill.distill.runs.folder import (
    CHECKPOINTS,
    LOCK,
    PAUSE,
    STOP,
    STUDENT,
    check_run,
    check_there,
    read_run,
)
from napari_histodistill.distill.runs.preview import Previews, remove_previews
from napari_histodistill.distill.runs.smaller_batch import recipe_digest, what_changed
from napari_histodistill.distill.training.sharing import Alone
from napari_histodistill.errors import (
    Cancelled,
    ComputeError,
    DeviceMemoryError,
    HistodistillError,
    InputError,
)
from napari_histodistill.lock import WriterLock
from napari_histodistill.running import CancelToken

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import torch

    from napari_histodistill.distill.pairs.loading import PairSplit
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.runs.report_facts import Ending
    from napari_histodistill.distill.runs.watch import Watch
    from napari_histodistill.distill.training.sharing import Processes
    from napari_histodistill.distill.training.trainer import Trainer
    from napari_histodistill.distill.training.views import Views
    from napari_histodistill.students.student import DeviceChoice

PAUSED_S = 0.2
"""Seconds between two looks at whether a paused run may go on."""

KEPT_EVERY_S = 60.0
"""So often a step is kept to go on from, besides the checkpoints that are judged: the
student hangs on no clock."""

AGREED_EVERY = 8
"""Steps after which several processes ask whether to pause or to stop."""

_GO_ON, _PAUSE, _STOP = range(3)


def train(  # noqa: PLR0913 - what a caller names, named here
    folder: Path,
    *,
    cancel: CancelToken | None = None,
    device: str = "auto",
    threads: int | None = None,
    processes: Processes | None = None,
    lock: WriterLock | None = None,
    bare: bool = False,
) -> Iterator[TrainingReport]:
    """Start or continue a run, until ``folder/student`` stands.

    On a CPU, with the same number of threads, a run that was interrupted at any moment
    and continued ends with the same bytes as one that never was. A file ``stop`` in the
    folder has the effect of the token, and while there is a file ``pause`` no step is
    taken; of several processes the first looks for these files, and all act on what it
    finds.

    Parameters
    ----------
    folder : Path
        Folder from :func:`start_run`.
    cancel : CancelToken or None
        Ends the run after the current step: a checkpoint is written and the best so
        far becomes the student. Before the first step there is nothing to keep.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    threads : int or None
        CPU threads that torch uses, in the whole process; None leaves them alone.
    processes : Processes or None
        Processes that share a batch; one by default.
    lock : WriterLock or None
        The run's own, if the caller holds it already: then a stop that was asked for
        since counts. Without it, a request that is there was made to an earlier
        process and is forgotten. It is released at the end.

    Yields
    ------
    TrainingReport
        Each is also a line of ``events.jsonl``.

    Raises
    ------
    InputError
        If recipe and pairs do not fit together, or another process trains here.
    ComputeError
        If the loss is no longer finite, the embeddings collapse, the disk is full or
        torch fails; checkpoints stay as they are.
    DeviceMemoryError
        If a batch does not fit.
    Cancelled
        After a stop, when everything is saved.
    """
    token = cancel or CancelToken()
    # From disk, even if the caller has just written it: a resumed run then trains by
    # the same text as the first.
    config, place = read_run(folder)
    group = processes or Alone()
    writes = group.rank == 0
    if writes:
        check_run(folder)
    if writes and lock is None:
        lock = WriterLock(folder / LOCK, wait_s=1)
        (folder / STOP).unlink(missing_ok=True)
    run = _Run(folder, config, place, token, writes, group, bare)
    try:
        for report in run.reports(device, threads):
            if writes:
                append_event(folder, report)
            yield report
    except HistodistillError as error:
        kind: Any = "stopped" if isinstance(error, Cancelled) else "failed"
        report = TrainingReport(
            kind,
            0,
            config.schedule.steps,
            message=str(error),
            reason="memory" if isinstance(error, DeviceMemoryError) else "",
        )
        # All processes stop together: once is enough. Any may be the one that fails.
        if writes or kind == "failed":
            # If the error is a full disk, the event cannot be written either.
            with suppress(ComputeError):
                append_event(folder, report)
        raise
    finally:
        if lock is not None:
            lock.release()


@dataclass(slots=True)
class _Run:
    folder: Path
    config: DistillConfig
    place: dict[str, str]
    cancel: CancelToken
    writes: bool  # the first of several processes; the others only compute
    group: Processes
    bare: bool

    def reports(self, device: str, threads: int | None) -> Iterator[TrainingReport]:
        from napari_histodistill.distill.pairs.loading import load_pairs

        steps = self.config.schedule.steps
        self._stop_early()
        split = load_pairs(self.config, Path(self.place["data"]))
        self._check_batch(split)
        self._stop_early()
        choice = training_device(self.config, device, threads)
        trainer, validation, choice = self._build(split, choice)
        self._stop_early()
        mark, changed = self._resume(trainer, split)
        yield TrainingReport(
            "started",
            mark.step,
            steps,
            message=(
                f"{len(split.train)} pairs on {choice.label}: {choice.reason}"
                f"{_untaught(self.config, split)}{_sent_again(trainer.views, choice)}"
            ),
            threads=_threads(choice),
            warning=" ".join(filter(None, self._warnings(choice))),
        )
        if changed:
            yield TrainingReport("changed", mark.step, steps, message=changed)
        previews = Previews(self.folder, self.config, split)
        try:
            for item in self._steps(trainer, validation, mark, previews):
                if isinstance(item, Mark):
                    mark = item
                else:
                    yield item
        except Cancelled:
            if mark.step:  # else there is nothing that anyone has learned
                ending = self._finish(trainer, split, BEST, "stopped")
                yield from self._saving(ending, mark.step)
            raise
        which = BEST if self.config.schedule.keep == "best" else LAST
        ending = self._finish(trainer, split, which, "finished")
        path = yield from self._saving(ending, steps)
        yield TrainingReport("finished", steps, steps, message=str(path))

    def _stop_early(self) -> None:
        """Raise Cancelled where a stop was asked for and no step was ever taken.

        Importing and building take seconds. A run that has a checkpoint goes through
        them all the same: its best becomes the student.
        """
        fresh = not (self.folder / CHECKPOINTS / LAST).is_file()
        if self.group.agree(self._asked()) == _STOP and fresh:
            msg = "Stopped on request before the first step: nothing was trained."
            raise Cancelled(msg)

    def _check_batch(self, split: PairSplit) -> None:
        batch = self.config.schedule.batch
        if len(split.train) < batch:
            msg = (
                f"schedule.batch: there are {len(split.train)} pairs to train on, a "
                f"batch needs {batch}: make the batch smaller, or add pairs."
            )
            raise InputError(msg)

    def _warnings(self, choice: DeviceChoice) -> tuple[str, ...]:
        home = Path(self.place["home"])
        emulated = _emulated(self.config, choice)
        return emulated, why_unlike_start(self.config, home)

    def _build(
        self, split: PairSplit, choice: DeviceChoice
    ) -> tuple[Trainer, Views | None, DeviceChoice]:
        import torch

        from napari_histodistill.distill.pairs.batches import START, torch_seed
        from napari_histodistill.distill.training.moving import room_for_pairs
        from napari_histodistill.distill.training.networks import DistillNet
        from napari_histodistill.distill.training.trainer import Trainer, converted
        from napari_histodistill.distill.training.views import Views

        home = Path(self.place["home"])

        def views(pairs: Any, room: int) -> Views:
            return Views(
                self.config,
                pairs,
                home=home,
                device=choice.name,
                cancel=self.cancel,
                room=room,
            )

        with converted(choice.name):
            room = room_for_pairs(choice.name)
            training = views(split.train, room)
            room -= training.size if training.stays else 0
            validation = views(split.validation, room) if split.validation else None
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed, which seeds every card; weights are drawn here.
                torch.default_generator.manual_seed(torch_seed(self.config.seed, START))
                net = DistillNet(self.config, training.inputs, home)
        if self.config.schedule.precision == "auto":
            choice = precision_for(net, choice)
        trainer = Trainer(
            self.config,
            net,
            training,
            device=choice.name,
            precision=choice.precision,
            processes=self.group,
        )
        return trainer, validation, choice

    def _resume(self, trainer: Trainer, split: PairSplit) -> tuple[Mark, str]:
        """Return where to continue, and what was changed on purpose since then."""
        fresh = Mark(0, recipe_digest(self.config), split.train.digest(), 0, None)
        path = self.folder / CHECKPOINTS / LAST
        if not path.is_file():
            return fresh, ""
        tensors, mark = read_checkpoint(path)
        changed = ""
        if mark.recipe != fresh.recipe:
            changed = what_changed(self.folder, self.config, mark.recipe)
        if changed:
            # Losses of batches of another size cannot be compared: the best so far no
            # longer counts.
            mark = replace(mark, recipe=fresh.recipe, best_score=None)
        if mark.recipe != fresh.recipe or mark.pairs != fresh.pairs:
            what = "recipe" if mark.recipe != fresh.recipe else "pairs"
            msg = (
                f"{path}: the {what} changed since this run was stopped: restore it, "
                "or start a run in another folder."
            )
            raise InputError(msg)
        try:
            if mark.step > self.config.schedule.steps:
                msg = f"it stands at step {mark.step}"
                raise ValueError(msg)
            trainer.load(tensors)
        except (ComputeError, LookupError, TypeError, ValueError) as error:
            msg = f"{path} does not fit this recipe ({error}): start the run again."
            raise InputError(msg) from error
        return mark, changed

    def _steps(
        self,
        trainer: Trainer,
        validation: Views | None,
        mark: Mark,
        previews: Previews,
    ) -> Iterator[TrainingReport | Mark]:
        from napari_histodistill.distill.runs.watch import Watch

        schedule = self.config.schedule
        watch = Watch(self.config)
        first, kept_at = mark.step, time.monotonic()
        for number in range(mark.step, schedule.steps):
            if (yield from self._obey(number)):
                if number:
                    watch.check(mark.step)
                    yield self._save(trainer, replace(mark, step=number))
                self.cancel.cancel()
                self.cancel.check()
            result = trainer.step(number)
            done = number + 1
            last = done == schedule.steps
            watch.follow(result, done, mark.step)
            if done % schedule.report_every == 0 or last or done == first + 1:
                watch.check(mark.step)
                yield watch.report(result, done, mark.step)
            if done % schedule.checkpoint_every == 0 or last:
                watch.check(mark.step)
                mark = replace(mark, step=done)
                mark = yield from self._judged(trainer, validation, watch, mark)
                kept_at = time.monotonic()
            elif time.monotonic() - kept_at > KEPT_EVERY_S:
                watch.check(mark.step)
                mark = replace(mark, step=done)
                yield self._save(trainer, mark)
                kept_at = time.monotonic()
            if self.writes and not last and previews.due(done):
                yield previews.write(trainer.average, done)

    def _obey(self, done: int) -> Generator[TrainingReport, None, bool]:
        """Wait while the folder says pause; return whether to stop."""
        if self.group.world > 1 and done % AGREED_EVERY:
            return False  # to agree is to wait for every card
        reported = False
        while (asked := self.group.agree(self._asked())) == _PAUSE:
            if not reported:
                reported = True
                yield TrainingReport("paused", done, self.config.schedule.steps)
            time.sleep(PAUSED_S)
        return asked == _STOP

    def _asked(self) -> int:
        if self.cancel.cancelled or (self.folder / STOP).exists():
            return _STOP
        return _PAUSE if (self.folder / PAUSE).exists() else _GO_ON

    def _judged(
        self, trainer: Trainer, validation: Views | None, watch: Watch, mark: Mark
    ) -> Generator[TrainingReport | Mark, None, Mark]:
        """Keep a step, as the best too if it is: of equals, the later."""
        score = None
        if validation is not None:
            found = trainer.validate(validation)
            yield watch.validation(found, mark.step)
            score = found.total
        if score is None or mark.best_score is None or score <= mark.best_score:
            mark = replace(mark, best_step=mark.step, best_score=score)
        yield self._save(trainer, mark)
        yield TrainingReport("checkpoint", mark.step, self.config.schedule.steps)
        return mark

    def _save(self, trainer: Trainer, mark: Mark) -> Mark:
        if not self.writes:
            return mark
        check_there(self.folder)
        # The best first: after a kill between the two, these steps are taken again and
        # write it again.
        places = self.folder / CHECKPOINTS
        if mark.best_step in {mark.step, 0}:
            write_checkpoint(places / BEST, trainer.student_tensors(), mark)
        write_checkpoint(places / LAST, trainer.tensors(), mark)
        return mark

    def _finish(
        self, trainer: Trainer, split: PairSplit, which: str, ending: Ending
    ) -> Generator[str, None, Path]:
        from napari_histodistill.distill.runs.report_facts import (
            rewrite_beside,
            write_report,
        )
        from napari_histodistill.distill.runs.student import write_student

        if not self.writes:
            return self.folder / STUDENT
        check_there(self.folder)
        if which == BEST:
            tensors, _mark = read_checkpoint(self.folder / CHECKPOINTS / BEST)
            trainer.load_student(tensors)
        path = yield from write_student(
            self.folder, self.config, split, trainer.average, bare=self.bare
        )
        if not self.bare:
            write_report(self.folder, self.config, split, ending=ending)
            yield from rewrite_beside(self.folder)
        remove_previews(self.folder)
        return path

    def _saving(
        self, parts: Generator[str, None, Path], step: int
    ) -> Generator[TrainingReport, None, Path]:
        """Report what is done after the last step, which may take a minute."""
        steps = self.config.schedule.steps
        while True:
            try:
                words = next(parts)
            except StopIteration as end:
                path: Path = end.value
                return path
            yield TrainingReport("saving", step, steps, message=words)


def _emulated(config: DistillConfig, choice: DeviceChoice) -> str:
    """Return a warning where the recipe states a precision that is only emulated."""
    from napari_histodistill.students.precision import emulation_note

    if config.schedule.precision == "auto":
        return ""
    return emulation_note(choice)


def _untaught(config: DistillConfig, split: PairSplit) -> str:
    """Return a note on classes that no training tile shows, if there are any."""
    labels = split.train.labels
    seen = set() if labels is None else set(labels.tolist())
    names = [c.name for k, c in enumerate(config.classes) if k not in seen]
    if labels is None or not names:
        return ""
    return f"; no training tile shows {', '.join(names)}, so it will not be named"


def _sent_again(views: Views, choice: DeviceChoice) -> str:
    """Return a note where a card has no room for the pairs, which costs speed."""
    if views.stays or not choice.name.startswith("cuda"):
        return ""
    return (
        f"; the pairs take {views.size / 2**30:.1f} GiB, more than half of what the "
        "card has free, so every step sends its own there"
    )


def _threads(choice: DeviceChoice) -> int | None:
    import torch

    return torch.get_num_threads() if choice.name == "cpu" else None


def training_device(
    config: DistillConfig, device: str, threads: int | None
) -> DeviceChoice:
    """Choose device and precision for training.

    ``precision = "auto"`` takes bfloat16 where it is native: it has float32's range, so
    nothing needs scaling (but see :func:`precision_for`). float16 is used only if the
    recipe asks for it.

    Raises
    ------
    DeviceError
        If the device does not exist here.
    """
    import torch

    from napari_histodistill.students.device import choose_device, cuda_has_bfloat16

    if threads is not None:
        torch.set_num_threads(threads)
    wanted = config.schedule.precision
    if wanted != "auto":
        return choose_device(device, precision=wanted)
    choice = choose_device(device)
    native = choice.precision == "bfloat16" or (
        choice.name.startswith("cuda")
        and cuda_has_bfloat16(int(choice.name.partition(":")[2]))
    )
    return choose_device(device, precision="bfloat16" if native else "float32")


def precision_for(net: torch.nn.Module, choice: DeviceChoice) -> DeviceChoice:
    """Return the choice in float32 where bfloat16 would be slower for this network.

    Measured on a CPU that multiplies bfloat16 natively: EfficientNet-Lite0, made of
    depthwise convolutions, trains 1.5 times faster in float32, a plain ResNet 1.4 times
    faster in bfloat16.
    """
    from torch.nn import Conv2d

    from napari_histodistill.students.device import choose_device

    slow = any(
        isinstance(part, Conv2d)
        and 1 < part.groups == part.in_channels
        and part.weight.requires_grad
        for part in net.modules()
    )
    if not slow or choice.name != "cpu" or choice.precision != "bfloat16":
        return choice
    return choose_device("cpu", precision="float32")
