"""Arguments: the types that the schemas promise and no others, nulls as if left out, nothing that could be a path."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from jobnimbus_mcp.tools import inputs
from jobnimbus_mcp.tools.table import ROWS, list_model, search_model

ROW = {row.many: row for row in ROWS}
JOBS, TASKS, FILES = (list_model(ROW[many]) for many in ("jobs", "tasks", "attachments"))
SEARCH_JOBS = search_model(ROW["jobs"])
EVERY = [inputs.CalendarArgs, *(model(row) for row in ROWS for model in (list_model, search_model))]


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (JOBS, {"size": "10"}),
        (JOBS, {"size": 10.0}),
        (JOBS, {"size": True}),
        (JOBS, {"size": 0}),
        (JOBS, {"size": 201}),
        (FILES, {"size": 501}),
        (JOBS, {"from": "3"}),
        (JOBS, {"from": -1}),
        (JOBS, {"max_age_s": "5"}),
        (JOBS, {"max_age_s": -0.1}),
        (JOBS, {"max_age_s": float("nan")}),
        (JOBS, {"has_schedule": "yes"}),
        (JOBS, {"is_archived": 1}),
        (TASKS, {"priority": "3"}),
        (TASKS, {"priority": 6}),
        (JOBS, {"verbosity": "loud"}),
        (JOBS, {"sort_by": "name"}),
        (JOBS, {"fields": 5}),
        (JOBS, {"fields": ""}),
        (SEARCH_JOBS, {"query": ""}),
        (SEARCH_JOBS, {"query": "x" * 201}),
        (inputs.JobArgs, {}),
        (inputs.JobArgs, {"job_id": "../users"}),
        (inputs.JobArgs, {"job_id": "a?b"}),
        (inputs.JobArgs, {"job_id": "a%2fb"}),
        (inputs.JobArgs, {"job_id": "a\x00b"}),
        (inputs.JobArgs, {"job_id": "a\u0085b"}),
        (inputs.JobArgs, {"job_id": "x" * 65}),
        (JOBS, {"contact_id": "a/b"}),
        (FILES, {"file_type": "../x"}),
        (inputs.CalendarArgs, {"sort_by": "date_created"}),
        (inputs.NoArgs, {"anything": 1}),
    ],
)
def test_what_the_schema_does_not_promise_is_refused(model: type[BaseModel], arguments: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(arguments)


@pytest.mark.parametrize("model", EVERY, ids=lambda model: model.__name__)
def test_an_optional_argument_sent_as_null_counts_as_left_out(model: type[BaseModel]) -> None:
    optional = {field.alias or name for name, field in model.model_fields.items() if field.default is None}

    sent = model.model_validate(dict.fromkeys(optional))

    assert sent == model.model_validate({})
    assert {"from", "max_age_s", "cursor", "fields"} <= optional


@pytest.mark.parametrize("model", EVERY, ids=lambda model: model.__name__)
def test_schemas_refuse_unknown_arguments_and_carry_no_titles(model: type[BaseModel]) -> None:
    schema = inputs.schema_of(model)

    assert schema["additionalProperties"] is False
    assert not any("title" in told for told in schema["properties"].values())
    assert "null" not in str(schema)
