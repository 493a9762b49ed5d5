"""The configuration of confluent-kafka's clients, and their errors in our words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from millstream.errors import BrokerUnavailable, LogError, LogFull, TopicExists, UnknownTopic

__all__ = ["CALL_SECONDS", "as_log_error", "settings", "translated"]

CALL_SECONDS = 30.0

T = TypeVar("T")
_LOGGER = logging.getLogger("millstream.log")
_LOGGER.addHandler(logging.NullHandler())  # else Python prints what no one has asked to see on standard error
_UNREACHABLE = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._RESOLVE,
}
_NO_REASON = KafkaError(KafkaError.UNKNOWN).str()
_BY_CODE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: UnknownTopic,
    KafkaError._UNKNOWN_TOPIC: UnknownTopic,
    KafkaError._UNKNOWN_PARTITION: UnknownTopic,
    KafkaError.TOPIC_ALREADY_EXISTS: TopicExists,
    KafkaError.KAFKA_STORAGE_ERROR: LogFull,
}


def settings(bootstrap: str, **more: object) -> dict[str, Any]:
    """What every client of a log gets; librdkafka's own lines go to the logger ``millstream.log``,
    and nowhere unless the program has configured logging: what matters of them comes as an exception."""
    return {
        "bootstrap.servers": bootstrap,
        "client.id": "millstream",
        "logger": _LOGGER,
        "log.connection.close": False,
        "reconnect.backoff.ms": 20,
        **more,
    }


def as_log_error(error: KafkaError, what: str) -> LogError:
    """`error`, met while doing `what`, as the exception that the caller can act on."""
    if error.code() in _UNREACHABLE:
        return BrokerUnavailable(
            f"{what}: no broker answered ({error.str()}); is it running, and is the address right?"
        )
    return _BY_CODE.get(error.code(), LogError)(f"{what}: {_reason(error)} ({error.name()})")


def _reason(error: KafkaError) -> str:
    """librdkafka keeps to itself what the broker said of a Produce that failed, so we say what it can be."""
    if error.code() == KafkaError.UNKNOWN and error.str() == _NO_REASON:
        return (
            "the broker can't write; a directory's broker answers so when the directory was removed or its disk "
            "failed, so stop it, look at the directory, and open the log again"
        )
    return str(error.str())


def translated(what: str, call: Callable[..., T], *args: object, **kwargs: object) -> T:
    """The result of `call`, its `KafkaException` turned into a `LogError`."""
    try:
        return call(*args, **kwargs)
    except KafkaException as fault:
        raise as_log_error(fault.args[0], what) from fault
