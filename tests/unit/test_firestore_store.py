"""What the Firestore store promises beyond the contract: its documents, its indexes, its rules, its bill."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import grpc
import httpx
import pytest
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1._helpers import decode_dict, encode_dict

from careflow.core.attempts import Disposition, end
from careflow.core.calls import CallState, Outcome
from careflow.core.calls import end as end_call
from careflow.core.patients import DoNotCall
from careflow.errors import StoreError, StoreUnavailable
from careflow.lab.firestore_emulator import EmulatorMissing, find_emulator, running_emulator
from careflow.store import firestore_kinds as kinds
from careflow.store import firestore_queries as queries
from careflow.store.firestore import FirestoreStore
from careflow.store.firestore_usage import Usage
from careflow.store.firestore_values import read_fields, write_fields
from emulated import INFRA, emulator_address, index_of, open_firestore, project_of, require_emulator, serves
from firestore_day import NOW, PHONE, a_day, attempt_of, calling, interaction_of, patient


@pytest.fixture
async def store(tmp_path):
    opened = await open_firestore(project_of(tmp_path))
    await opened.check()  # what is the same for whatever is asked first (TestIds)
    opened._connection.usage = Usage()
    yield opened
    await opened.close()


def root_of(project):
    """Where the emulator's REST interface has the project's documents."""
    return f"http://{emulator_address()}/v1/projects/{project}/databases/(default)/documents"


async def documents(project):
    """Everything in the project's database, by path, as the emulator's REST interface shows it to its owner."""
    root = root_of(project)
    found = {}
    async with httpx.AsyncClient(headers={"Authorization": "Bearer owner"}) as http:

        async def walk(parent):
            listed = await http.post(f"{parent}:listCollectionIds", json={})
            for collection in listed.json().get("collectionIds", []):
                page = (await http.get(f"{parent}/{collection}", params={"showMissing": "true"})).json()
                for document in page.get("documents", []):
                    path = document["name"].split("/documents/", 1)[1]
                    found[path] = document.get("fields", {})
                    await walk(f"{root}/{path}")

        await walk(root)
    return found


def path_of(store, place):
    """Where it is in this store's database."""
    return place.path(store._connection.secret)


def plain_hashes(*texts):
    """What somebody would look for who tries all numbers: any usual hash of any usual spelling, whole or cut."""
    parts = [part for count in (1, 2, 3) for part in permutations(texts, count)]
    spellings = {
        sep.join(part).encode() for part in parts for sep in ("\0", "", "-", "/", ":", "|", ",", " ")
    }
    return {
        hashlib.new(name, text).hexdigest()[:24]
        for text in spellings
        for name in ("md5", "sha1", "sha256", "sha512")
    }


class TestIds:
    async def test_the_same_number_has_another_id_in_every_database(self, tmp_path):
        found = []
        for name in ("one", "two"):
            store = await open_firestore(project_of(tmp_path / name))
            await a_day(store)
            found.append(set(await documents(project_of(tmp_path / name))))
            await store.close()
        assert len(found[0]) == len(found[1]) > 8
        assert found[0] & found[1] == {"keys/ids"}

    async def test_no_id_is_a_hash_of_what_is_known(self, store, tmp_path):
        await store.put_patients([patient()])
        call = calling()
        await store.create_calls([call])
        await store.begin_attempt(attempt_of(call), lambda patient, barred: None)
        await store.add_do_not_call(
            DoNotCall(hospital_id="h1", phone=PHONE, patient_id="MRN-77", attempt_id="x", since=NOW)
        )
        ids = {path.rsplit("/", 1)[1] for path in await documents(project_of(tmp_path))}
        known = plain_hashes(
            "h1", PHONE, PHONE.removeprefix("+"), "phone", "patient", "MRN-77", "lines", "bars", "doNotCall"
        )
        assert len(ids) > 8
        assert not ids & known

    async def test_two_stores_that_make_the_secret_at_once_share_one(self, tmp_path):
        stores = [await open_firestore(project_of(tmp_path)) for _ in range(4)]
        await asyncio.gather(
            *(store.put_patients([patient(f"p{number}")]) for number, store in enumerate(stores))
        )
        assert len({store._connection.secret for store in stores}) == 1
        assert [one.id for one in await stores[0].patients("h1")] == ["p0", "p1", "p2", "p3"]
        for store in stores:
            for number in range(4):
                assert await store.patient("h1", f"p{number}") == patient(f"p{number}")
            await store.close()

    async def test_who_comes_while_another_makes_and_uses_the_secret_takes_that(self, tmp_path):
        late, early = [await open_firestore(project_of(tmp_path)) for _ in range(2)]
        get = late._connection.get

        async def get_then_wait(*arguments, **options):
            late._connection.get = get
            found = await get(*arguments, **options)
            await early.put_patients([patient()])
            return found

        late._connection.get = get_then_wait
        assert await late.patient("h1", "MRN-77") == patient()
        assert late._connection.secret == early._connection.secret
        for store in (late, early):
            await store.close()

    async def test_the_secret_is_read_once(self, store, tmp_path):
        other = await open_firestore(project_of(tmp_path))
        for _ in range(3):
            await other.patient("h1", "p1")
        assert (other.usage.reads, other.usage.writes) == (4, 0)
        await other.close()

    async def test_nothing_is_made_up_for_a_database_whose_secret_is_gone(self, store, tmp_path):
        await store.put_patients([patient()])
        async with httpx.AsyncClient(headers={"Authorization": "Bearer owner"}) as http:
            gone = await http.delete(f"{root_of(project_of(tmp_path))}/keys/ids")
            assert gone.status_code == 200
        other = await open_firestore(project_of(tmp_path))
        for _ in range(2):
            with pytest.raises(StoreError, match="keys/ids is gone"):
                await other.on_do_not_call("h1", "MRN-77", PHONE)
        assert "keys/ids" not in await documents(project_of(tmp_path))
        await other.close()


class TestDocuments:
    async def test_paths_name_nobody_and_are_never_sequential(self, store, tmp_path):
        await a_day(store)
        paths = await documents(project_of(tmp_path))
        known = {kind.collection for kind in kinds.KINDS} | set(kinds.AIDS)
        for path in paths:
            names, ids = path.split("/")[::2], path.split("/")[1::2]
            assert set(names) <= known
            assert all(re.fullmatch("[0-9a-f]{24}", one) for one in ids) or path == "keys/ids", path

    async def test_the_paths_and_keys_are_the_seeds(self, store, tmp_path):
        await a_day(store)
        stored = await documents(project_of(tmp_path))
        here = path_of(store, kinds.patient_place("h1", "MRN-77"))
        preferences = stored[here]["schedulePreferences"]["mapValue"]["fields"]
        assert preferences["hours"] == {"arrayValue": {"values": [{"integerValue": "8"}]}}
        assert "times" in preferences
        (contact,) = [path for path in stored if path.startswith(f"{here}/interactions/")]
        assert stored[contact]["startedAt"] == {"timestampValue": "2026-11-23T13:00:00.123457Z"}

    async def test_every_document_names_its_hospital(self, store, tmp_path):
        await a_day(store)
        stored = await documents(project_of(tmp_path))
        assert set(stored.pop("keys/ids")) == {"secret", "writeId"}
        for path, fields in stored.items():
            assert fields["hospitalId"] == {"stringValue": "h1"}, path

    async def test_a_line_is_held_as_long_as_the_attempt_is_open(self, store, tmp_path):
        await store.put_patients([patient()])
        call = calling()
        await store.create_calls([call])
        await store.begin_attempt(attempt_of(call), lambda patient, barred: None)
        assert len([path for path in await documents(project_of(tmp_path)) if path.startswith("lines/")]) == 2
        ended = end(attempt_of(call), NOW, Disposition.BUSY)
        await store.end_attempt(ended, interaction=interaction_of(ended))
        assert not [path for path in await documents(project_of(tmp_path)) if path.startswith("lines/")]

    async def test_a_check_leaves_nothing(self, store, tmp_path):
        await store.check()
        assert list(await documents(project_of(tmp_path))) == ["keys/ids"]
        assert (store.usage.writes, store.usage.deletes, store.usage.reads) == (0, 1, 0)

    async def test_a_foreign_id_for_a_new_call_is_refused(self, store):
        with pytest.raises(ValueError, match="not that of its round"):
            await store.create_calls([replace(calling(), id="mine")])

    async def test_a_roster_too_large_for_one_commit_changes_nothing(self, store):
        many = [patient(f"p{number}", conditions=("x" * 1000,)) for number in range(4000)]
        with pytest.raises(ValueError, match="fewer at a time"):
            await store.put_patients(many)
        assert await store.patients("h1", limit=1) == []
        assert await store.roster_revision("h1") == 0


class TestRequests:
    async def test_a_named_database_is_found_by_its_headers(self):
        """Google routes a request by them; the emulator does not look."""
        seen = []

        class Anything(grpc.GenericRpcHandler):
            def service(self, call):
                seen.append((call.method.rsplit("/", 1)[1], dict(call.invocation_metadata)))

        server = grpc.aio.server(handlers=[Anything()])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        store = await FirestoreStore.open(project="p", database="named", emulator=f"127.0.0.1:{port}")
        for ask in (store.check, lambda: store.patient("h1", "p1"), lambda: store.patients("h1")):
            with pytest.raises(StoreUnavailable, match="UNIMPLEMENTED"):
                await ask()
        await store.close()
        await server.stop(None)
        assert {name for name, _ in seen} >= {"BatchGetDocuments"}
        for _, headers in seen:
            where, database = headers["x-goog-request-params"].split("=")
            assert (where, database.split("/documents")[0]) in (
                ("database", "projects/p/databases/named"),
                ("parent", "projects/p/databases/named"),
            )
            assert headers["google-cloud-resource-prefix"] == "projects/p/databases/named"
            assert "gapic/" in headers["x-goog-api-client"]

    def test_values_are_written_and_read_as_the_client_library_does(self):
        document = {**kinds.CALLS.to_document(calling()), **kinds.PATIENTS.to_document(patient())}
        document |= {
            "none": None,
            "bytes of text": "é💬",
            "yes": True,
            "half": 0.5,
            "big": -(2**62),
            "empty": {},
        }
        ours = types.Document.pb()()
        write_fields(ours.fields, document)
        assert dict(ours.fields) == {
            key: types.Value.pb(value) for key, value in encode_dict(document).items()
        }
        assert read_fields(ours.fields) == decode_dict(ours.fields, None) == document


class TestIndexes:
    def test_the_file_is_what_the_queries_need(self):
        assert json.loads((INFRA / "firestore.indexes.json").read_text()) == queries.indexes()

    @pytest.mark.parametrize(
        "shape", queries.SHAPES, ids=lambda shape: f"{shape.collection}-{shape.indexed()}"
    )
    def test_every_query_has_its_index(self, shape):
        choice = ["a"] if shape.among or shape.holding else []
        query = shape.query(*("v" for _ in shape.equal), choice=choice, limit=1)
        assert serves(index_of(query))

    def test_no_field_is_indexed_alone_unless_a_query_names_it_alone(self):
        overrides = queries.indexes()["fieldOverrides"]
        off = {one["collectionGroup"] for one in overrides if one["fieldPath"] == "*" and not one["indexes"]}
        assert off == {kind.collection for kind in kinds.KINDS} | set(kinds.AIDS)
        assert {
            (one["collectionGroup"], one["fieldPath"]) for one in overrides if one["fieldPath"] != "*"
        } == {
            ("attempts", "callSid"),
            ("hospitals", "hospitalId"),
        }

    def test_what_is_over_is_in_no_index_of_what_is_open(self):
        call = calling()
        assert kinds.CALLS.to_document(call)["open"] is True
        assert "open" not in kinds.CALLS.to_document(end_call(call, NOW, Outcome.CANCELLED))


class TestRules:
    async def test_nobody_but_a_server_gets_at_anything(self):
        emulator = require_emulator()
        async with (
            running_emulator(emulator, rules=INFRA / "firestore.rules") as address,
            httpx.AsyncClient() as http,
        ):
            root = f"http://{address}/v1/projects/p/databases/(default)/documents"
            owner = {"Authorization": "Bearer owner"}
            for path in ("patients/a", "patients/a/interactions/b", "attempts/c", "keys/ids"):
                made = await http.patch(f"{root}/{path}", json={"fields": {}}, headers=owner)
                assert made.status_code == 200
                answers = [
                    await http.get(f"{root}/{path}"),
                    await http.get(f"{root}/{path.rsplit('/', 1)[0]}"),
                    await http.patch(f"{root}/{path}", json={"fields": {}}),
                    await http.post(f"{root}/{path.rsplit('/', 1)[0]}", json={"fields": {}}),
                    await http.delete(f"{root}/{path}"),
                ]
                assert [one.status_code for one in answers] == [403] * 5
            group = {"structuredQuery": {"from": [{"collectionId": "interactions", "allDescendants": True}]}}
            assert (await http.post(f"{root}:runQuery", json=group)).status_code == 403


class TestUsage:
    async def test_a_call_is_counted_as_google_bills_it(self, store):
        await a_day(store)
        used = store.usage
        # patient: 1 read, 2 writes. call: 1 write. begin: 3 + 4 reads, 3 writes. dialled: 1 + 1 reads, 2 writes.
        # end: 1 attempt + 1 entry read; attempt, interaction, entry and 2 bars written, 2 lines deleted.
        assert (used.reads, used.writes, used.deletes) == (1 + 7 + 2 + 2, 2 + 1 + 3 + 2 + 5, 2)
        assert used.requests["commit"] == 5

    async def test_a_query_without_a_result_is_a_read(self, store):
        assert await store.patients("h1") == []
        assert (store.usage.reads, store.usage.reads_by_rpc["query"]) == (1, 1)

    async def test_a_missing_document_is_a_read(self, store):
        await store.patient("h1", "nobody")
        assert store.usage.reads_by_rpc == {"get": 1}

    async def test_counting_costs_by_the_thousand_not_by_the_call(self, store):
        await store.create_calls([calling(f"p{number}") for number in range(300)])
        before = store.usage.reads
        assert await store.count_calls("h1", "r1") == {("calling", "", ""): 300}
        assert store.usage.reads - before == 3  # which there are: one, then none; then one count

    @pytest.mark.parametrize(("entries", "reads"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (10_000, 10)])
    def test_a_count_is_a_read_for_each_thousand_entries(self, entries, reads):
        usage = Usage()
        usage.counted(entries)
        assert usage.reads == reads

    async def test_planning_asks_the_do_not_call_list_thirty_at_a_time(self, store):
        await store.put_patients(
            [patient(f"p{number:03}", phone=f"+121255501{number:02}") for number in range(90)]
        )
        before = store.usage.reads
        assert len(await store.candidates("h1", 8)) == 90
        assert store.usage.reads - before == 90 + 3 + 3


class TestCounting:
    async def test_the_counts_are_of_one_instant(self, store):
        """A call that is claimed while calls are counted moves to a state that the count has passed already."""
        calls = [replace(calling(f"p{number}"), state=CallState.WAITING) for number in range(3)]
        await store.create_calls(calls)
        query = store._connection.query

        async def and_then_one_is_claimed(*arguments, **options):
            answer = await query(*arguments, **options)
            await store.claim_call(
                "h1", calls[0].id, owner="w", now=NOW, lease_until=NOW + timedelta(minutes=1)
            )
            return answer

        store._connection.query = and_then_one_is_claimed
        assert await store.count_calls("h1", "r1") == {("waiting", "", ""): 3}
        store._connection.query = query
        assert await store.count_calls("h1", "r1") == {("calling", "", ""): 1, ("waiting", "", ""): 2}


class TestFinding:
    def test_a_jar_that_is_not_there_is_named(self, tmp_path):
        require_emulator()
        with pytest.raises(EmulatorMissing, match="JAR is '/nowhere"):
            find_emulator({"CAREFLOW_FIRESTORE_EMULATOR_JAR": "/nowhere.jar", "PATH": "/usr/bin:/bin"})

    def test_without_java_there_is_none(self, tmp_path):
        with pytest.raises(EmulatorMissing, match="Java"):
            find_emulator({"PATH": str(tmp_path)})
