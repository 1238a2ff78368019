"""Chat trajectories: what becomes of good ones, and what is said of bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.demo.conftest import journal, of_type, run_demo
from tracebridge.demo.trajectories import Trajectories, TrajectoryError

USER = {"role": "user", "content": "Where is it?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"number": 7}'}}
CHAT: dict[str, Any] = {
    "task_id": 3,
    "trial": 1,
    "reward": 1.0,
    "user_id": "ada",
    "messages": [
        {"role": "system", "content": "Be short."},
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "name": "find", "content": "Error: no such parcel"},
        {"role": "assistant", "content": "I cannot find it."},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "Sorry."},
    ],
}


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def chat(*messages: object, **changes: object) -> dict[str, object]:
    return {**CHAT, "messages": list(messages), **changes}


class TestAChat:
    @pytest.fixture
    def events(self, traces: Path, tmp_path: Path) -> list[dict[str, Any]]:
        scenario = Trajectories(written(tmp_path / "chats.jsonl", CHAT))
        assert len(list(scenario.play())) == scenario.turns == 2
        return journal(traces)

    def test_it_is_a_session_with_a_turn_for_each_message_of_the_user(self, events: list[dict[str, Any]]) -> None:
        (start,), (end,) = of_type(events, "session.start"), of_type(events, "session.end")
        turns = [event["data"] for event in of_type(events, "turn.start") + of_type(events, "turn.end")]

        assert start["session_id"] == "task-3-trial-1"
        assert start["data"]["user_id"] == "ada"
        assert end["data"]["outcome"] == {"reward": 1.0}
        assert turns == [
            {"user_input": "Where is it?"},
            {"user_input": "Thanks."},
            {"output": "I cannot find it."},
            {"output": "Sorry."},
        ]

    def test_each_message_of_the_assistant_is_a_call_of_a_model_with_all_before_it(
        self, events: list[dict[str, Any]]
    ) -> None:
        requests = of_type(events, "llm.request")
        sent = [[message["role"] for message in request["data"]["messages"]] for request in requests]

        assert sent == [
            ["system", "user"],
            ["system", "user", "assistant", "tool"],
            ["system", "user", "assistant", "tool", "assistant", "user"],
        ]
        assert of_type(events, "llm.response")[0]["data"]["tool_calls"] == [
            {"id": "c1", "function": {"name": "find", "arguments": '{"number": 7}'}}
        ]

    def test_a_tool_s_message_is_a_call_of_that_tool_and_one_that_begins_with_error_has_failed(
        self, events: list[dict[str, Any]]
    ) -> None:
        (call,), (result,) = of_type(events, "tool.call"), of_type(events, "tool.result")

        assert call["data"] == {"tool_name": "find", "args": {"number": 7}, "call_id": "c1"}
        assert (result["data"]["success"], result["data"]["result"]) == (False, "Error: no such parcel")


def test_arguments_that_are_no_json_are_kept_as_the_model_wrote_them(traces: Path, tmp_path: Path) -> None:
    broken = {"id": "c1", "function": {"name": "find", "arguments": '{"number": '}}
    asking = {"role": "assistant", "tool_calls": [broken]}
    answer = {"role": "tool", "tool_call_id": "c1", "content": "ok"}
    list(Trajectories(written(tmp_path / "chats.jsonl", chat(USER, asking, answer))).play())

    (call,) = of_type(journal(traces), "tool.call")
    assert call["data"]["args"] == '{"number": '


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not a chat trajectory"),
        ("[]", "Expected `object`"),
        ('{"task_id": "\udcff"}'.encode("utf-8", "surrogateescape").decode("latin-1"), "not a chat trajectory"),
        ({"messages": [USER]}, "task_id"),
        (chat(), "messages"),
        (chat({"role": "robot", "content": "x"}), "$.messages[0].role"),
        (chat({"role": "user", "content": 5}), "$.messages[0].content"),
        (chat({"role": "assistant", "content": "Hello"}), "no message is the user's"),
        (chat(USER, {"role": "tool", "content": "x"}), "messages[1] is a tool's result with no tool_call_id"),
        (chat(USER, {"role": "tool", "content": "x", "tool_call_id": "c9"}), "tool_call_id 'c9'"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_what_is_wrong(line: object, said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "chats.jsonl", CHAT, "", line)
    with pytest.raises(TrajectoryError) as raised:
        Trajectories(path)

    assert str(raised.value).startswith(f"{path}:3: ")
    assert said in str(raised.value)


def test_a_file_without_a_trajectory_says_what_a_line_must_be(tmp_path: Path) -> None:
    with pytest.raises(TrajectoryError, match=r"holds no trajectory\. Each line must be an object like"):
        Trajectories(written(tmp_path / "chats.jsonl", "", " "))


@pytest.mark.parametrize("path", ["not-there.jsonl", "."], ids=["no such file", "a folder"])
def test_a_file_that_cannot_be_read_ends_the_demo_with_one_line(path: str, tmp_path: Path) -> None:
    ran = run_demo("--input", tmp_path / path)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"tracebridge: {tmp_path / path}")
    assert ran.stderr.count("\n") == 1
