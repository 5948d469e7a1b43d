"""``embed --scheduler``: the command line's side of ``maps.cluster``."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.addresses import shown, signature_of, url_of
from napari_histodistill.cli.console import interruptible, tell
from napari_histodistill.cli.outputs import output_folder
from napari_histodistill.errors import ComputeError, HistodistillError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distributed import Client

    from napari_histodistill.cli.console import Answer
    from napari_histodistill.maps.cohort import SlideResult, SlideTask


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Keep a connection to a scheduler while slides are checked and embedded.

    Raises
    ------
    InputError
        If dask.distributed is not installed, or no scheduler answers there.
    """
    from napari_histodistill.maps.cluster import connect

    with connect(address) as client:
        # We say in a sentence that a scheduler went away; dask would log a traceback.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        yield client


def embed_on_cluster(
    client: Client, tasks: Sequence[SlideTask], digest: str, out: Path
) -> list[SlideResult]:
    """Embed slides on the workers of a scheduler, with a line on stderr for each.

    Parameters
    ----------
    client : distributed.Client
        See :func:`connected`.
    tasks : sequence of SlideTask
        As typed; relative paths are made absolute, old stores deleted here.
    digest : str
        Digest of the student that all workers must have.
    out : Path
        Folder of the stores.

    Returns
    -------
    list of SlideResult
        In the order of the tasks, failures among them.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    Cancelled
        After Ctrl-C; what is done is kept.
    """
    from napari_histodistill.maps.cluster import embed_cohort
    from napari_histodistill.maps.cohort import SlideResult

    output_folder(out)
    sent = {_to_send(task, digest): task for task in tasks}
    ended: dict[SlideTask, SlideResult] = {}
    with interruptible() as cancel:
        # Deleted here, and once: a worker may be given the same slide again.
        for task in tasks:
            try:
                _delete_if_asked(task)
            except HistodistillError as error:
                why, code = str(error), error.exit_code
                ended[task] = SlideResult(task=task, error=why, exit_code=code)
        sent = {key: task for key, task in sent.items() if task not in ended}
        for result in embed_cohort(client, list(sent), cancel=cancel, tell=tell):
            task = sent[result.task]
            ended[task] = replace(result, task=task)
            tell(f"{len(ended)} of {len(tasks)}: {in_a_line(ended[task])}")
    return [ended[task] for task in tasks]


def give_cohort(
    answer: Answer, facts: dict[str, Any], text: str, results: Sequence[SlideResult]
) -> None:
    """Print what was finished, and raise if something was not.

    Raises
    ------
    InputError
        If all slides failed and all are bad input.
    ComputeError
        If some failed otherwise; the object printed before then has ``failed``, too.
    """
    bad = [result for result in results if result.error]
    if not bad:
        answer.give(facts, text)
        return
    answer.give({**facts, "failed": failed_facts(bad)}, text)
    many = f"{len(bad)} of {len(results)} slides failed, the first one: "
    msg = (many if len(results) > 1 else "") + in_a_line(bad[0])
    bad_input = all(result.exit_code == InputError.exit_code for result in bad)
    if bad_input and len(bad) == len(results):
        raise InputError(msg)
    raise ComputeError(msg)


def failed_facts(results: Sequence[SlideResult]) -> list[dict[str, str]]:
    """Return what JSON says of the slides that failed."""
    return [
        {"slide": shown(r.task.slide), "store": str(r.task.store), "error": r.error}
        for r in results
        if r.error
    ]


def _to_send(task: SlideTask, digest: str) -> SlideTask:
    from napari_histodistill.students.bundled import find_bundled

    name = task.student
    return replace(
        task,
        slide=task.slide if url_of(task.slide) else task.slide.absolute(),
        signature=signature_of(task.slide),
        store=task.store.absolute(),
        student=name if find_bundled(name) else str(Path(name).absolute()),
        student_digest=digest,
        restart=False,
    )


def _delete_if_asked(task: SlideTask) -> None:
    from napari_histodistill.maps import remove_store

    if task.restart and task.store.exists():
        remove_store(task.store)


def failed(task: SlideTask, error: Exception) -> SlideResult:
    """Return the result of a slide that failed, and say so."""
    from napari_histodistill.maps.cohort import SlideResult

    if isinstance(error, HistodistillError):
        result = SlideResult(task=task, error=str(error), exit_code=error.exit_code)
    else:
        words = " ".join(str(error).split()) or "no message"
        why = f"{task.slide.name}: unexpected {type(error).__name__}: {words}."
        result = SlideResult(task=task, error=why, exit_code=ComputeError.exit_code)
    tell(in_a_line(result))
    return result


def in_a_line(result: SlideResult) -> str:
    """Return the outcome of a slide in one line."""
    name = result.task.slide.name
    if result.error:
        return result.error if name in result.error else f"{name}: {result.error}"
    line = (
        f"{name}: {result.cells} squares in {result.seconds:.1f} s on {result.device}"
    )
    if not result.task.store.exists():
        line += (
            f"; but {result.task.store} is not visible here: workers must write to a "
            "folder that this machine shares"
        )
    return line
