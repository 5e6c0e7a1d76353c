"""Arguments: the types that the schemas promise and no others, nulls as if left out, nothing that could be a path."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from jobnimbus_mcp.tools import inputs

EVERY = [
    inputs.JobsArgs,
    inputs.SearchJobsArgs,
    inputs.ContactsArgs,
    inputs.SearchContactsArgs,
    inputs.EstimatesArgs,
    inputs.ActivitiesArgs,
    inputs.CalendarArgs,
    inputs.TasksArgs,
    inputs.UsersArgs,
    inputs.AttachmentsArgs,
]


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (inputs.JobsArgs, {"size": "10"}),
        (inputs.JobsArgs, {"size": 10.0}),
        (inputs.JobsArgs, {"size": True}),
        (inputs.JobsArgs, {"size": 0}),
        (inputs.JobsArgs, {"size": 201}),
        (inputs.AttachmentsArgs, {"size": 501}),
        (inputs.JobsArgs, {"from": "3"}),
        (inputs.JobsArgs, {"from": -1}),
        (inputs.JobsArgs, {"max_age_s": "5"}),
        (inputs.JobsArgs, {"max_age_s": -0.1}),
        (inputs.JobsArgs, {"max_age_s": float("nan")}),
        (inputs.JobsArgs, {"has_schedule": "yes"}),
        (inputs.JobsArgs, {"is_archived": 1}),
        (inputs.TasksArgs, {"priority": "3"}),
        (inputs.TasksArgs, {"priority": 6}),
        (inputs.JobsArgs, {"verbosity": "loud"}),
        (inputs.JobsArgs, {"sort_by": "name"}),
        (inputs.JobsArgs, {"fields": 5}),
        (inputs.JobsArgs, {"fields": ""}),
        (inputs.SearchJobsArgs, {"query": ""}),
        (inputs.SearchJobsArgs, {"query": "x" * 201}),
        (inputs.JobArgs, {}),
        (inputs.JobArgs, {"job_id": "../users"}),
        (inputs.JobArgs, {"job_id": "a?b"}),
        (inputs.JobArgs, {"job_id": "a%2fb"}),
        (inputs.JobArgs, {"job_id": "a\x00b"}),
        (inputs.JobArgs, {"job_id": "a\u0085b"}),
        (inputs.JobArgs, {"job_id": "x" * 65}),
        (inputs.JobsArgs, {"contact_id": "a/b"}),
        (inputs.AttachmentsArgs, {"file_type": "../x"}),
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
