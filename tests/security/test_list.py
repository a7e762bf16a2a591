"""Every security case of the design, and the tests that hold it: here, or beside what they test."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
HERE = "security/test_pickles_and_code.py"
PATHS = "security/test_paths_and_archives.py"
SPEAKING = "security/test_terminal_and_prompts.py"
CASES: dict[str, list[str]] = {
    "malicious pickle: model weights": [
        f"{HERE}::test_a_model_folder",
        "models/test_load.py::test_pickled_checkpoint_is_refused",
    ],
    "malicious pickle: adapter": [f"{HERE}::test_an_adapter"],
    "malicious pickle: numpy arrays of objects": [f"{HERE}::test_stored_states_and_ngram_models"],
    "malicious pickle: joblib, and pickles called data": [f"{HERE}::test_a_pickle_as_data"],
    "no call in the source that runs what a file says": [
        f"{HERE}::test_the_source_calls_nothing_that_runs_what_a_file_says"
    ],
    "YAML tags": [f"{HERE}::test_yaml_tags", "runs/test_recipe.py::test_one_clear_error"],
    "code in task files": [
        "evaluation/test_lm_eval_task.py::test_code_is_refused_with_the_name_of_the_flag",
        "evaluation/test_lm_eval_task.py::test_keys_that_mean_code_are_refused",
    ],
    "templates that reach Python": [
        "evaluation/test_lm_eval_task.py::test_templates_cannot_reach_python",
        "models/test_templates.py::test_sandbox_and_bad_templates",
    ],
    "paths and links out of the recipe's folder": [
        f"{PATHS}::test_sources_adapters_and_models_of_a_recipe",
        f"{PATHS}::test_links_inside_a_source",
        "cli/test_bad_input.py::test_paths_that_leave_the_workspace",
        "data/test_bad_input.py::test_links_that_leave_the_folder_are_not_followed",
        "evaluation/test_lm_eval_task.py::test_links_out_of_the_project_are_refused",
    ],
    "paths that writers, exports and reports write to": [
        f"{PATHS}::test_what_writers_write",
        f"{PATHS}::test_exports_and_reports_go_where_they_are_told_and_overwrite_nothing",
    ],
    "manifests that name files elsewhere": [
        f"{PATHS}::test_a_manifest_that_names_shards_elsewhere",
        f"{PATHS}::test_a_saved_dataset_folder_that_names_files_elsewhere",
        f"{PATHS}::test_an_artifact_that_names_files_elsewhere_is_none",
    ],
    "archives that unpack elsewhere": [
        f"{PATHS}::test_a_document_that_unpacks_elsewhere_or_to_too_much",
        "models/test_fetch.py::test_fetch_with_real_pip_converts_and_is_kept",
        "models/test_fetch.py::test_damaged_linked_or_incomplete_wheels",
    ],
    "small files that become large": [
        f"{PATHS}::test_a_small_file_that_becomes_a_large_record",
        f"{PATHS}::test_a_document_that_unpacks_elsewhere_or_to_too_much",
    ],
    "values that lie outside of their file": [
        f"{PATHS}::test_an_arrow_stream_whose_values_lie_elsewhere_does_not_end_the_process"
    ],
    "downloads that are not what they should be": [
        "models/test_fetch.py::test_changed_wheel_is_refused",
        "models/test_fetch.py::test_changed_payload_is_refused",
    ],
    "redirects to forbidden addresses": [
        "models/test_endpoint_storms.py::test_redirects_to_other_addresses_are_refused",
        "models/test_endpoint.py::test_redirect_to_another_host_is_refused",
    ],
    "size and time of an endpoint's answers": [
        "models/test_endpoint_storms.py::test_the_time_limit_is_that_of_the_whole_answer",
        "models/test_endpoint_storms.py::test_huge_answers_are_cut_off",
    ],
    "text that leaves the machine": [
        "cli/test_bad_input.py::test_text_never_leaves_without_permission",
        "models/test_endpoint.py::test_remote_needs_permission",
    ],
    "secrets in logs, ledger, report, errors": [
        "security/test_secrets.py::test_a_run_leaves_the_key_nowhere",
        "security/test_secrets.py::test_nothing_of_the_environment_is_recorded",
        "models/test_endpoint.py::test_key_is_sent_and_never_shown",
    ],
    "script payloads in the report": [
        "report/test_build.py::test_no_text_of_the_ledger_becomes_an_element_or_attribute",
        "report/test_render.py::test_hostile_text_stays_text",
        "report/test_render.py::test_the_policy_admits_only_our_style",
        "cli/test_bad_input.py::test_hostile_rows_reach_report_and_terminal_harmless",
    ],
    "script payloads in the label page": [
        "security/test_label_page.py::test_texts_are_put_in_as_text_only",
        "runs/test_labelling.py::test_the_page_is_one_file_under_a_strict_policy",
        "runs/test_labelling_page.py::test_texts_do_nothing",
    ],
    "who may use the label page": ["runs/test_labelling.py::test_without_the_token_nothing_is_told"],
    "formulas in CSV": ["data/test_writers.py::test_formulas_in_csv"],
    "a model folder with code of its own": [
        "models/test_load.py::test_code_of_a_model_never_runs_unasked",
        "cli/test_allow_remote_code.py::test_a_recipe_permits_it_and_what_it_trained_loads_again",
        "cli/test_allow_remote_code.py::test_every_command_that_loads_a_model_asks_and_can_be_told",
    ],
    "commands that a recipe names": ["adapters/test_external_command.py::test_no_shell_reads_the_arguments"],
    "instructions in data that a judge reads": [
        f"{SPEAKING}::test_a_text_cannot_leave_its_tags",
        f"{SPEAKING}::test_the_comparison_of_corrected_answers_is_asked_so",
        f"{SPEAKING}::test_an_answer_is_read_by_its_schema",
    ],
    "terminal sequences and markup in data": [
        f"{SPEAKING}::test_every_way_to_the_terminal",
        f"{SPEAKING}::test_the_bar_of_a_training",
        f"{SPEAKING}::test_commands_speak_through_one_place",
        "data/test_bad_input.py::test_control_characters_in_an_error_are_shown_not_sent",
    ],
    "readers that write, start or connect": ["fuzz/test_fuzz.py::test_whatever_the_bytes"],
}


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_its_tests(case):
    assert CASES[case]
    for place in CASES[case]:
        file, _, name = place.partition("::")
        assert name in names_in(TESTS / file), place


def test_every_test_of_this_folder_is_listed():
    listed = {place for places in CASES.values() for place in places}
    own = {
        f"security/{file.name}::{name}"
        for file in Path(__file__).parent.glob("test_*.py")
        if file.name != Path(__file__).name
        for name in names_in(file)
        if name.startswith("test_")
    }
    small = {
        f"{SPEAKING}::test_json_stays_json",
        f"{SPEAKING}::test_the_marks_follow_from_the_texts",
        f"{SPEAKING}::test_text_for_people_keeps_its_lines",
        f"{PATHS}::test_a_table_of_parquet_that_is_not_its_own_text",
        "security/test_secrets.py::test_credentials_in_an_address_are_refused_without_repeating_them",
        "security/test_secrets.py::test_passwords_of_a_package_index_are_not_told",
    }
    assert own - listed == small
