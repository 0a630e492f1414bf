"""Every experiment of one MongoDB database, and the upkeep of their segments."""

from __future__ import annotations

import re
import threading
from typing import Any

from . import run_record
from .address import check_prefix
from .catalog import ExperimentInfo, matches, not_found
from .errors import StoreUnavailable
from .heard import SILENT_AFTER_S
from .store import KINDS, MERGED, Document
from .stores.archive import Archive, ArchivedObject, ArchivedSeries
from .stores.bucket import Bucket, open_bucket
from .stores.compactor import Compactor, Policy
from .stores.mongo import MongoStore
from .stores.mongo_driver import Doc, answering, import_pymongo
from .stores.mongo_reader import Reader
from .stores.mongo_tables import Tables
from .stores.upkeep import Done, Upkeep

TIMEOUTS = {"serverSelectionTimeoutMS": 5_000, "connectTimeoutMS": 5_000, "socketTimeoutMS": 60_000}


def connect(uri: str, **options: Any) -> Any:
    """A client whose writes are durable on a majority; a timeout in the URI goes before the default."""
    pymongo = import_pymongo()
    given = {option.split("=")[0].lower() for option in uri.partition("?")[2].split("&")}
    timeouts = {name: value for name, value in TIMEOUTS.items() if name.lower() not in given}
    with answering():
        return pymongo.MongoClient(uri, tz_aware=True, appname="ml-dash", **{**timeouts, **options})


def majority(client: Any, database: str) -> Any:
    """The database, written to and read from as the store needs it whatever the URI says."""
    from pymongo import ReadPreference
    from pymongo.read_concern import ReadConcern
    from pymongo.write_concern import WriteConcern

    return client.get_database(
        database,
        write_concern=WriteConcern("majority", wtimeout=30_000, j=True),
        read_concern=ReadConcern("majority"),
        read_preference=ReadPreference.PRIMARY,
    )


class MongoCatalog:
    """The experiments in a database; safe to use from several threads, and from several processes at once.

    Args:
        uri: `mongodb://...`.
        database: its name.
        s3_url: the archive's bucket, `s3://bucket/folder`; None keeps everything in the database.
        policy: when segments are merged, archived and removed.
        bucket: the archive's bucket, opened already.
        client: a PyMongo client, opened already; it is not closed here.
        silent_after_s: a running run is silent when it was not heard of for so long.
    """

    def __init__(
        self,
        uri: str = "",
        database: str = "ml_dash",
        *,
        s3_url: str | None = None,
        policy: Policy | None = None,
        bucket: Bucket | None = None,
        client: Any = None,
        silent_after_s: float = SILENT_AFTER_S,
    ) -> None:
        self.silent_after_s = silent_after_s
        self._client, self._owned = client or connect(uri), client is None
        self._tables = Tables(majority(self._client, database))
        self._policy = policy = policy or Policy()
        if bucket is None and s3_url is not None:
            bucket = open_bucket(s3_url)
        self._archive = None if bucket is None else Archive(self._tables, bucket)
        self._reader = Reader(self._tables, bucket)
        self._compactor = Compactor(self._tables, self._reader, policy)
        self._upkeep = Upkeep(self._tables, self._compactor, policy, self._archive)
        self._ready = False
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Declare the indexes, once; every other method does it when it is first used.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        with self._lock:
            if not self._ready:
                self._tables.create_indexes()
                self._ready = True

    def ping(self) -> None:
        """Return where the database answers; raise StoreUnavailable where it does not."""
        with answering():
            self._client.admin.command("ping")

    # -------------------------------------------------------------- experiments

    def experiments(self, pattern: str = "*") -> list[ExperimentInfo]:
        """The experiments whose prefix matches (`catalog.matches`), sorted by prefix."""
        return [self._info(doc) for doc in self._docs(pattern)]

    def prefixes(self, pattern: str = "*") -> list[str]:
        """The prefixes of the experiments that match, sorted: cheaper than `experiments`."""
        return [doc["prefix"] for doc in self._docs(pattern)]

    def find(self, prefix: str) -> ExperimentInfo:
        """One experiment; raises ExperimentNotFound with the nearest names, or InvalidPrefix."""
        return self._info(self._doc(prefix))

    def _docs(self, pattern: str) -> list[Doc]:
        self.prepare()
        beginning = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        with answering():
            return [doc for doc in self._tables.experiments_from(beginning) if matches(doc["prefix"], pattern)]

    def _doc(self, prefix: str) -> Doc:
        check_prefix(prefix)
        self.prepare()
        with answering():
            doc = self._tables.experiment(prefix)
        if doc is None:
            raise not_found(prefix, self.prefixes(), "the database")
        return doc

    def _info(self, doc: Doc) -> ExperimentInfo:
        known = self.store(doc["prefix"]).read_document(run_record.DOCUMENT)
        said: Document = known or {}
        heard = float(doc["heard"] if "heard" in doc else doc["created"])
        silent = self._tables.now() - heard >= self.silent_after_s
        with answering():
            tags = said.get("tags")
            return ExperimentInfo(
                doc["prefix"],
                run_record.status_of(known, _never_here, is_silent=silent, elsewhere=True),
                last_heard=run_record.iso(heard),
                created_at=said.get("created_at"),
                started_at=said.get("started_at"),
                ended_at=said.get("ended_at"),
                tracks=self._tables.count_series(doc["_id"], MERGED),
                tags=tuple(map(str, tags)) if isinstance(tags, list) else (),
                readme=said.get("readme"),
            )

    def store(self, prefix: str) -> MongoStore:
        """The store of one experiment, which comes into being with its first write.

        Raises:
            InvalidPrefix: the prefix cannot name an experiment.
        """
        check_prefix(prefix)
        self.prepare()
        return MongoStore(self._tables, self._reader, prefix)

    def note_heard(self, prefix: str) -> bool:
        """Who records an experiment was heard of just now; False where there is no such experiment."""
        with answering():
            return self._tables.note_heard(prefix)

    def remove(self, prefix: str) -> None:
        """Delete an experiment with everything in it.

        Raises:
            ExperimentNotFound: nobody recorded it.

        Guarantees: it is gone for readers and writers on return; upkeep frees its space an hour later. Who is
        recording it now begins a new experiment of that name.
        """
        doc = self._doc(prefix)
        with answering():
            self._tables.end_experiment(doc["_id"], self._tables.now())

    # -------------------------------------------------------------- upkeep

    def upkeep(self) -> Done:
        """One pass over all series that are due: compaction, sweep, archive, removal."""
        self.prepare()
        return self._upkeep.run_once()

    def run_upkeep(self, stop: threading.Event, every_s: float = 30.0) -> None:
        """Passes until told to stop, the bucket's janitor and deleted experiments every hundredth; for a thread."""
        self._upkeep.run(stop, every_s)

    def compact(self, prefix: str, *, whole: bool = True) -> int:
        """Merge the segments of every series of an experiment now; the number merged. What they replace goes later."""
        with answering():
            return sum(self._compactor.compact(doc, few=True, whole=whole) for doc in self._series(prefix))

    def sweep(self, prefix: str) -> int:
        """Remove what finished compactions of an experiment replaced, where the grace period is over; the number."""
        with answering():
            return sum(self._upkeep.sweep(doc) for doc in self._series(prefix))

    def archive(self, prefix: str) -> int:
        """Move the compacted parts of an experiment to the bucket now; the number moved.

        A part moves once what it was compacted from is gone: `compact`, wait for the grace period, `sweep`, `archive`.

        Raises:
            StoreUnavailable: the bucket does not answer, or none is configured.
        """
        archive = self._bucket_needed()
        with answering():
            return sum(archive.store(doc) for doc in self._series(prefix))

    def archived(self, prefix: str, topic: str | None = None, kind: str = MERGED) -> list[ArchivedSeries]:
        """The objects that make up an experiment's archive now, by topic, for engines that read the bucket directly.

        A glob over the bucket may also meet objects that are about to go, and entries whose deletion is on its way.
        Empty where no archive is configured.

        Raises:
            ExperimentNotFound: nobody recorded it.
        """
        with answering():
            docs = [doc for doc in self._series(prefix, kind) if topic is None or doc["topic"] == topic]
            ordered = sorted(docs, key=lambda doc: str(doc["topic"]))
            return [self._archive.series(doc) for doc in ordered] if self._archive is not None else []

    def every_archived(self, prefix: str) -> list[ArchivedSeries]:
        """As `archived`, for the series of every kind."""
        return [series for kind in KINDS for series in self.archived(prefix, kind=kind)]

    def is_settling(self, prefix: str) -> bool:
        """Whether something waits for the grace period to end."""
        with answering():
            found = [self._tables.live(doc["_id"]) for doc in self._series(prefix)]
            return any(header.get("of") for headers in found for header in headers)

    def objects(self, prefix: str, topic: str | None = None, kind: str = MERGED) -> list[ArchivedObject]:
        """The objects of all these series together."""
        return [found for series in self.archived(prefix, topic, kind) for found in series.objects]

    @property
    def bucket_url(self) -> str | None:
        """Where the archive is; None where there is none."""
        return None if self._archive is None else self._archive.bucket.url

    @property
    def policy(self) -> Policy:
        """When segments are merged, archived and removed."""
        return self._policy

    def clean_bucket(self) -> int:
        """Delete objects that no segment has named for a day; the number deleted."""
        return self._upkeep.janitor()

    def remove_leftovers(self) -> int:
        """Free what deleted experiments held; the number of experiments."""
        return self._upkeep.remove_gone_experiments()

    def _bucket_needed(self) -> Archive:
        if self._archive is None:
            raise StoreUnavailable("no archive is configured: give the server --s3-url")
        return self._archive

    def _series(self, prefix: str, kind: str | None = None) -> list[Doc]:
        """The documents of an experiment's series."""
        doc = self._doc(prefix)
        kinds = (kind,) if kind is not None else KINDS
        return [series for one in kinds for series in self._tables.series_of_kind(doc["_id"], one)]

    def close(self) -> None:
        """Close the connection, where it was opened here."""
        if self._owned:
            self._client.close()


def _never_here(writer: str) -> bool:
    """Whether a writer records in the database's own folder: there is none."""
    return False
