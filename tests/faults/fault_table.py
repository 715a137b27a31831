"""The faults that postroom lives through, what each must end in, and the tests that prove it.

A test proves two things: that the fault was really there (`evidence`), and what came of it. `test_fault_table.py` holds
this table against the tests that exist.
"""

from __future__ import annotations

from dataclasses import dataclass

FAULTS = 43


@dataclass(frozen=True, slots=True)
class Row:
    """One fault. `gap` says what of it is not proved, or not there yet, and why; empty where nothing is missing."""

    number: int
    fault: str
    must_end_in: str
    tests: tuple[str, ...]
    evidence: str
    gap: str = ""


def _in(folder: str, **files: str) -> tuple[str, ...]:
    """Ids of tests: `file="test_one test_two"`, a class before its test with a dot."""
    return tuple(
        f"tests/{folder}/{name}.py::{test.replace('.', '::')}"
        for name, tests in files.items()
        for test in tests.split()
    )


TABLE: tuple[Row, ...] = (
    Row(
        1,
        "The broker that leads a partition is killed (-9).",
        "The client library repeats by itself: nothing lost, no dead letter, publishing again within 20 s.",
        (
            *_in("faults", test_cluster="test_a_dead_controller_and_then_no_majority_of_controllers"),
            *_in("kafka", test_leader_death="test_nothing_is_lost_repeated_or_swapped_when_the_leader_is_killed"),
            *_in("chaos", test_short_chaos="test_five_leaders_killed_break_no_promise"),
        ),
        "The process is gone, and what it led has another leader afterwards; 100 records were unacknowledged.",
    ),
    Row(
        2,
        "All brokers are away for minutes.",
        "Events go to the spool two seconds after the last connection's end, and come out five after the return.",
        (
            *_in(
                "faults",
                test_brokers="test_all_brokers_dead_the_path_spools_in_two_seconds_and_drains_five_seconds_after_"
                "their_return",
                test_name_servers="test_name_servers_that_do_not_answer_stop_nobody",
            ),
            *_in(
                "contract", test_publisher_suite="test_five_seconds_after_the_return_of_kafka_records_are_acknowledged"
            ),
            *_in(
                "unit/testing",
                test_faults_in_a_service="TestAway.test_events_of_ten_minutes_are_spooled_and_sent_in_order_once_it_is_back",
            ),
        ),
        "The broker's process is gone; the client library says that no connection is up; the log says `path_spools`.",
        "Away for seconds on real brokers; the ten minutes pass on a clock of the test's own, and in the chaos run.",
    ),
    Row(
        3,
        "Brokers are frozen (SIGSTOP) and thawed.",
        "No gap, and every key in order.",
        (
            *_in(
                "faults",
                test_brokers="test_after_a_long_freeze_the_first_record_from_the_spool_follows_the_thaw_by_five_seconds",
            ),
            *_in("chaos", test_short_chaos="test_two_of_three_brokers_frozen_and_thawed_under_load_break_no_promise"),
            *_in("kafka", test_producer_service="test_brokers_frozen_for_longer_than_the_patience"),
        ),
        "The processes are stopped for longer than the patience, and more than 100 events were spooled.",
    ),
    Row(
        4,
        "The controllers lose their majority; the active one is killed.",
        "No crash; metadata is asked for again until there is one.",
        _in("faults", test_cluster="test_a_dead_controller_and_then_no_majority_of_controllers"),
        "The broker that metadata named as controller is dead, and then two of three.",
    ),
    Row(
        5,
        "Too few replicas are in sync (NOT_ENOUGH_REPLICAS).",
        "The spool, and never called delivered.",
        (
            *_in("faults", test_cluster="test_a_dead_controller_and_then_no_majority_of_controllers"),
            *_in(
                "faults",
                test_broker_errors="test_what_may_be_written_although_the_broker_says_no_is_sent_again_marked "
                "test_brokers_short_of_replicas_get_the_first_record_from_the_spool_five_seconds_after_their_return",
            ),
        ),
        "A plain producer that tries once is told so by the broker; the metric of errors counts that code.",
    ),
    Row(
        6,
        "Too few replicas, after the leader has written (NOT_ENOUGH_REPLICAS_AFTER_APPEND).",
        "It may be written: sent again, marked.",
        _in("faults", test_broker_errors="test_what_may_be_written_although_the_broker_says_no_is_sent_again_marked"),
        "The mock cluster answers with that code; metric and log name it.",
        "By a mock cluster: a real one gives this code by chance only.",
    ),
    Row(
        7,
        "The acknowledgement is lost after the record was written.",
        "The same event id, marked; none twice after removing repeats.",
        (
            *_in("faults", test_network="test_events_whose_acknowledgement_was_lost_are_sent_again_marked"),
            *_in(
                "unit/testing",
                test_faults_in_a_service="TestLostAcks.test_every_event_arrives_once_or_more_and_every_repeat_is_marked",
            ),
        ),
        "A plain consumer finds the records in the log while no receipt is done; the relay counts swallowed replies.",
    ),
    Row(
        8,
        "The delivery times out while the record is on its way.",
        "Nobody knows: the spool, one attempt more, no dead letter.",
        _in(
            "faults",
            test_network="test_a_delivery_timeout_in_flight_says_nothing_so_the_record_is_spooled_and_marked "
            "test_events_whose_acknowledgement_was_lost_are_sent_again_marked",
        ),
        "The client library reports `_MSG_TIMED_OUT` (metric), and the records are in the log.",
    ),
    Row(
        9,
        "The delivery times out while the record waits in the queue.",
        "It was not sent: the spool, the same attempt.",
        (
            *_in(
                "faults",
                test_brokers="test_all_brokers_dead_the_path_spools_in_two_seconds_and_drains_five_seconds_after_"
                "their_return",
            ),
            *_in("unit/services", test_spooling="TestRepeats.test_what_was_never_sent_carries_no_mark"),
            *_in(
                "unit/streaming",
                test_kafka_client="test_records_handed_in_while_no_broker_can_be_reached_were_never_sent",
            ),
        ),
        "No connection is up from before these events until the broker is started again.",
        "Said only where no connection was up: see docs/design/0002. Elsewhere a mark too many is the price.",
    ),
    Row(
        10,
        "The producer meets a fatal error.",
        "A new one within two seconds, every unreported record sent again, and counted.",
        (
            *_in(
                "faults",
                test_broker_errors="test_after_a_fatal_error_there_is_a_new_producer_in_two_seconds_and_everything_"
                "unreported_is_sent_again test_a_new_producer_that_meets_a_fatal_error_at_once_is_replaced_as_well",
            ),
            *_in(
                "unit/streaming",
                test_kafka_client="TestFatalErrors.test_one_that_a_broker_causes_gives_the_client_a_new_producer_within_"
                "two_seconds TestFatalErrors.test_one_that_comes_again_and_again_is_met_with_growing_pauses",
            ),
        ),
        "The mock cluster answers OUT_OF_ORDER_SEQUENCE_NUMBER; log and metric say `producer_fatal`.",
        "By a mock cluster: a real one gives a fatal error only when it has lost its own data.",
    ),
    Row(
        11,
        "The topic does not exist.",
        "An error of the set-up that names the topic and what to do; held in the spool; readiness red.",
        _in(
            "faults",
            test_topics="test_a_missing_topic_is_named_with_its_remedy_and_its_events_wait_for_it",
            test_reasons="test_the_line_about_a_missing_topic_says_what_to_do",
        ),
        "The cluster does not list it, before and after.",
    ),
    Row(
        12,
        "The topic is deleted and made again while events come in.",
        "The books are equal.",
        _in(
            "faults",
            test_topics="test_a_topic_that_is_deleted_and_made_again_while_events_come_in_leaves_the_books_equal",
        ),
        "The cluster does not list it for a while, and what the old one held is not in the new one.",
    ),
    Row(
        13,
        "Partitions are added while events come in.",
        "Nothing lost, and the order of each key is explained.",
        _in("faults", test_topics="test_partitions_added_live_lose_nothing_and_a_key_moves_once"),
        "Records stand in new partitions, and keys have moved.",
    ),
    Row(
        14,
        "A record is too large, here or at the broker.",
        "That event alone becomes a dead letter, and its dead letter fits.",
        (
            *_in(
                "faults",
                test_too_large="test_a_record_too_large_for_the_broker_becomes_a_dead_letter_alone "
                "test_events_that_fit_alone_are_delivered_although_their_batch_is_too_large_for_the_broker "
                "test_a_record_too_large_for_the_broker_that_comes_out_of_the_spool_holds_up_no_other",
                test_topics="test_a_record_above_the_limit_of_the_client_is_a_dead_letter_that_fits "
                "test_a_topic_that_will_refuse_what_may_be_sent_is_told_of_after_the_start",
            ),
            *_in(
                "contract",
                test_publisher_suite="TestWhatOnlyARealBrokerSays.test_a_record_that_it_refuses_takes_none_of_its_batch_"
                "with_it",
            ),
        ),
        "The broker says MSG_SIZE_TOO_LARGE (log, metric).",
    ),
    Row(
        15,
        "The right to write is taken away.",
        "Readiness red, the spool, and no hot loop: one line in ten seconds.",
        _in("faults", test_security="test_a_right_that_is_taken_away_and_given_back"),
        "The broker says TOPIC_AUTHORIZATION_FAILED (metric).",
    ),
    Row(
        16,
        "The login fails: wrong password, rotated password, expired token.",
        "Taken to the spool; a new password without a restart.",
        _in(
            "faults",
            test_security="test_a_wrong_password_accepts_to_the_spool "
            "test_a_password_that_is_rotated_while_a_service_runs_accepts_to_the_spool "
            "test_a_rotated_password_is_read_from_its_file_without_a_restart",
            test_reasons="test_a_wrong_password_is_what_readiness_names",
        ),
        "The client library says `_AUTHENTICATION` (log).",
        "A password that has a file of its own is read again from there; one in a variable takes a new process: nobody "
        "can change it from outside. Tokens (OAUTHBEARER) are no mechanism of postroom.",
    ),
    Row(
        17,
        "TLS: a certificate that expired, is for another host, or comes from nobody known; an old protocol.",
        "Refused with the reason; nothing weaker is tried.",
        _in(
            "faults",
            test_security="test_a_broker_whose_certificate_proves_nothing_gets_no_record "
            "test_a_broker_that_speaks_only_an_old_protocol_is_refused_and_nothing_weaker_is_tried "
            "test_a_broker_with_a_good_certificate_is_trusted "
            "test_a_plain_client_gets_nothing_through_a_listener_that_wants_tls",
            test_reasons="test_a_refused_certificate_is_told_with_the_reason",
        ),
        "The library's log says that the certificate does not verify; the old server notes each handshake.",
        "The old protocol is spoken by a server of the test's own: this Java speaks none.",
    ),
    Row(
        18,
        "The broker throttles.",
        "Callers feel it; no timeout follows from another.",
        (
            *_in(
                "faults",
                test_quota="test_a_throttled_producer_presses_back_on_its_callers_and_times_nothing_out "
                "test_more_than_a_throttled_broker_takes_in_time_is_not_sent_twice",
            ),
            *_in(
                "contract",
                test_publisher_suite="TestWhatOnlyARealBrokerSays.test_a_quota_makes_records_wait_and_is_no_outage",
            ),
        ),
        "The broker tells the client how long it makes it wait (log).",
    ),
    Row(
        19,
        "The client library's queue is full.",
        "A wait with an end, then the spool; one outcome each.",
        (
            *_in(
                "faults",
                test_network="test_a_queue_that_stays_full_is_waited_for_as_long_as_said_and_then_the_spool_takes_over",
            ),
            *_in(
                "unit/services",
                test_spooling="TestAway.test_a_full_queue_is_waited_for_and_then_handed_over_to_the_spool "
                "TestAway.test_who_does_not_wait_at_all_is_refused_when_the_queue_is_full",
            ),
        ),
        "As many records are unacknowledged as the queue holds, behind a frozen relay.",
    ),
    Row(
        20,
        "A stop with records unsent.",
        "In the spool before the exit.",
        _in(
            "kafka",
            test_stopping="TestSigtermWithKafkaAway.test_when_kafka_freezes_under_it_all_is_on_the_disk_when_the_grace_"
            "time_is_over TestClosing.test_many_closes_at_once_all_return_when_all_is_on_the_disk",
        ),
        "The events were handed in after Kafka was gone or frozen; a plain reader finds each in the files.",
    ),
    Row(
        21,
        "A user's callback raises.",
        "It is contained; the others run.",
        (
            *_in("faults", test_service="test_a_callback_that_raises_hurts_no_event_and_no_other_callback"),
            *_in("unit/services", test_receipt="TestCallbacks.test_one_that_raises_anything_hurts_no_other"),
            *_in(
                "kafka",
                test_stopping="TestCallbacksWhileItCloses.test_whatever_they_do_all_of_them_are_called_and_the_events_are_"
                "on_the_disk",
            ),
        ),
        "The callback counts its calls before it raises; the log has a line.",
    ),
    Row(
        22,
        "A callback publishes, polls or waits.",
        "Impossible to go wrong: it runs on a thread of its own, outside of every poll.",
        (
            *_in("faults", test_service="test_a_callback_may_publish_and_wait_and_nothing_stands_still"),
            *_in(
                "unit/streaming",
                test_kafka_client="TestReportHandlers.test_one_that_waits_for_reports_is_told_so_instead_of_waiting_for_ever",
            ),
            *_in("contract", test_publisher_suite="TestReports.test_a_handler_may_publish"),
        ),
        "The callback notes its thread, publishes, serves and waits.",
    ),
    Row(
        23,
        "The interpreter ends without a close.",
        "Spooled or reported, never silently gone.",
        _in(
            "kafka",
            test_stopping="TestAnEndWithoutClose.test_a_program_leaves_all_on_the_disk_within_seconds_when_it "
            "TestAnEndWithoutClose.test_without_a_spool_each_event_is_told_that_it_failed "
            "TestAnEndWithoutClose.test_what_was_told_safe_outlives_a_sigterm_that_nobody_handles",
            test_fork="TestTheEnd.test_a_program_that_just_ends_delivers_everything",
        ),
        "The program never calls close, and its exit code is the one of its ending.",
    ),
    Row(
        24,
        "A fork after the service was made: multiprocessing, Celery, preloading servers.",
        "It works in the child.",
        _in(
            "kafka",
            test_fork="TestFork.test_parent_and_child_both_publish_when_the_fork_comes_in_the_middle "
            "TestFork.test_workers_of_multiprocessing_that_just_return_lose_nothing "
            "TestForkWithASpool.test_each_process_has_its_own_slot_and_its_own_books_and_sends_its_own_records "
            "TestWorkersWithASpool.test_those_of_multiprocessing_leave_all_on_the_disk",
            test_the_end="TestForkWithASpool.test_forks_in_the_middle_of_busy_threads_lose_nothing_and_hang_nowhere",
        )
        + _in("docs", test_frameworks="test_a_prefork_worker_publishes_from_its_children"),
        "Both processes publish; each tells its own books.",
    ),
    Row(
        25,
        "kill -9 of the process.",
        "Accepted is safe, repeats are marked, events are taken again within two seconds at any size of the spool.",
        (
            *_in("faults", test_process="test_after_kill_9_with_much_in_the_spool_events_are_accepted_in_two_seconds"),
            *_in("chaos", test_short_chaos="test_a_worker_killed_at_random_moments_breaks_no_promise"),
            *_in(
                "unit/streaming/spool",
                test_kill="test_kill_9_at_random_moments_loses_nothing_that_was_reported_as_stored",
            ),
        ),
        "The exit code is that of SIGKILL; at least 100 records were unacknowledged or unsynced.",
        "Here with 90 MB; with 1 GiB in the benchmark of the outage.",
    ),
    Row(
        26,
        "kill -9 in the middle of a rotation, of writing the cursor, of an unlink.",
        "It recovers alone.",
        (
            *_in("unit/testing", test_killed_process="test_what_it_knew_to_be_safe_is_found_by_the_next_one"),
            *_in(
                "unit/streaming/spool",
                test_kill="test_kill_9_at_random_moments_loses_nothing_that_was_reported_as_stored",
                test_power_cuts="test_no_power_cut_loses_invents_reorders_or_unmarks_a_record",
            ),
        ),
        "The process is killed at the named step; a step that is not reached is an error of the test.",
    ),
    Row(
        27,
        "SIGTERM while Kafka is away.",
        "The end within the grace time, everything spooled.",
        _in(
            "kafka",
            test_stopping="TestSigtermWithKafkaAway.test_a_process_that_never_saw_kafka_ends_in_time_with_all_on_the_"
            "disk "
            "TestSigtermWithKafkaAway.test_when_kafka_dies_under_it_all_is_on_the_disk_in_seconds "
            "TestTheRunCommand.test_sigterm_with_kafka_dead_leaves_all_on_the_disk_and_the_next_run_sends_it",
        ),
        "The broker is dead or frozen; the signal is sent to the process, and the seconds to its end are counted.",
    ),
    Row(
        28,
        "SIGINT twice; a reload with a bad file.",
        "A fast exit, still durable; the old settings stay.",
        _in(
            "kafka",
            test_stopping="TestCtrlCTwice.test_the_second_one_ends_the_waiting_and_all_is_on_the_disk "
            "TestTheRunCommand.test_ctrl_c_twice_ends_it_at_once_with_all_on_the_disk",
        )
        + _in("unit/libs", test_config_loader="TestTheValue.test_nothing_can_be_changed"),
        "Both signals are sent while it waits for Kafka.",
        "There is no reload: settings are read once, and nothing can change them in a running process.",
    ),
    Row(
        29,
        "Memory is short.",
        "Every queue has a bound; refused with a time, nothing lost.",
        (
            *_in(
                "faults",
                test_process="test_with_kafka_away_memory_does_not_grow_with_what_is_spooled "
                "test_a_disk_that_stands_still_bounds_what_waits_for_it_and_the_rest_is_refused_with_a_time",
                test_disk="test_an_end_of_memory_while_the_spool_writes_fails_those_events_and_the_next_are_taken",
            ),
            *_in("unit/streaming/spool", test_spool="test_more_than_memory_should_hold_is_refused_with_a_short_time"),
        ),
        "The size of the process is read; a sync stands still; MemoryError is raised where a file is made.",
        "No process is run until the machine has no memory left: the client library ends it then.",
    ),
    Row(
        30,
        "The disk is full.",
        "Refused with a time; draining works while it is full; accepted again after, without a restart.",
        (
            *_in(
                "chaos",
                test_short_chaos="test_a_full_disk_refuses_and_drains_and_once_freed_accepts_without_a_restart",
            ),
            *_in(
                "unit/streaming/spool",
                test_disk_faults="test_a_really_full_disk_refuses_drains_and_takes_again_without_a_restart "
                "test_a_disk_that_fills_between_two_looks_at_it_costs_nothing_that_was_accepted "
                "test_a_limit_on_the_size_of_files_is_a_full_disk",
            ),
            *_in(
                "unit/services",
                test_spooling="TestFull.test_on_a_full_disk_what_is_in_the_spool_still_drains",
            ),
        ),
        "A mounted file system of 8 MiB has no byte free.",
    ),
    Row(
        31,
        "A write is short.",
        "Continued or cut back; half a frame never counts.",
        (
            *_in("unit/streaming/spool", test_disk_faults="test_short_writes_are_continued"),
            *_in("unit/testing", test_faulty_file_system="TestABrokenDisk.test_short_writes_cost_nothing"),
            *_in("unit/testing", test_faults_in_a_service="TestDisk.test_short_writes_cost_nothing"),
        ),
        "The file system takes 1, 7 or 1,000 bytes of each write.",
    ),
    Row(
        32,
        "EIO on a write or a sync.",
        "The batch fails to its callers, the segment is sealed, and a second sync of that file is never believed.",
        (
            *_in(
                "faults",
                test_disk="test_a_disk_that_takes_nothing_turns_readiness_red_with_a_clear_word_until_it_is_mended",
            ),
            *_in(
                "unit/streaming/spool",
                test_disk_faults="test_an_error_fails_its_batch_only_and_the_next_one_is_stored_elsewhere "
                "test_a_file_whose_sync_failed_is_never_written_or_believed_again",
            ),
            *_in("unit/services", test_spooling="TestFull.test_a_sync_that_failed_says_that_the_event_may_come_back"),
        ),
        "The file system notes each refusal that it gave.",
    ),
    Row(
        33,
        "The spool's folder is read-only, forbidden or gone, or its disk hangs; no inodes, no file handles.",
        "Readiness red, and a clear message; nobody waits for a disk that hangs again and again.",
        (
            *_in(
                "faults",
                test_disk="test_a_disk_that_takes_nothing_turns_readiness_red_with_a_clear_word_until_it_is_mended "
                "test_without_file_handles_what_is_open_goes_on_and_a_start_says_so "
                "test_a_folder_that_belongs_to_somebody_else_is_said_at_the_start "
                "test_a_read_only_mount_is_said_at_the_start test_a_disk_without_inodes_refuses_like_a_full_one "
                "test_a_disk_that_hangs_holds_nobody_up_for_long_and_closing_ends",
                test_folder_removed="test_a_spool_folder_that_somebody_removes_is_noticed_and_nothing_more_is_called_"
                "safe",
            ),
            *_in(
                "unit/streaming/spool",
                test_disk_faults="test_a_folder_that_turns_read_only_refuses_and_keeps_what_it_has "
                "test_no_file_handles_left_is_a_typed_error",
                test_hanging_disk="test_what_comes_while_the_disk_hangs_waits_at_first_and_is_refused_at_once_then "
                "test_a_stop_waits_for_no_disk_that_hangs_and_tells_everybody_what_may_be_there",
            ),
        ),
        "Real mounts, rights and limits where that is possible; else the file system notes each refusal.",
    ),
    Row(
        34,
        "The power is cut: what was not synced is lost, zeroed or reordered.",
        "Every acknowledged record is intact.",
        _in(
            "unit/streaming/spool",
            test_power_cuts="test_no_power_cut_loses_invents_reorders_or_unmarks_a_record "
            "test_taking_out_any_one_sync_call_breaks_a_promise",
        ),
        "A model of the disk gives every state that it may be found in; without any one sync the test fails.",
        "On a model: nobody cuts the power of a test machine.",
    ),
    Row(
        35,
        "A bit of a segment flips.",
        "That record is set aside, the later ones are delivered.",
        (
            *_in(
                "faults",
                test_disk="test_a_flipped_bit_costs_its_record_and_the_others_are_delivered",
                test_books_after_damage="test_the_books_do_not_say_for_ever_that_a_damaged_record_waits_to_be_sent "
                "test_a_record_that_is_set_aside_is_told_by_a_line_of_the_log",
            ),
            *_in(
                "unit/streaming/spool",
                test_damage="test_a_flip_of_any_bit_costs_at_most_the_record_it_hits "
                "test_a_bit_flipped_in_the_cursor_costs_no_record",
            ),
        ),
        "The bit is flipped in the file, between two processes.",
    ),
    Row(
        36,
        "Two processes on one spool; a dead owner; a living child of a dead owner.",
        "Each has its own slot; a dead one's is taken over; a forked child holds no lock.",
        (
            *_in(
                "faults",
                test_process="test_two_services_on_one_spool_have_a_slot_each_and_a_third_takes_over_what_both_left",
            ),
            *_in(
                "unit/streaming/spool",
                test_slots="test_two_processes_on_one_root_have_a_slot_each_and_a_dead_ones_is_taken_over "
                "test_a_child_forked_from_a_process_that_is_killed_does_not_keep_its_slot",
            ),
            *_in("kafka", test_fork="TestForkWithASpool.test_a_child_holds_no_lock_and_no_file_of_its_parent"),
        ),
        "The names of the slots differ; the open files of each process are read.",
    ),
    Row(
        37,
        "A spool of a newer or older version; a foreign file in the folder.",
        "Refused or migrated, never deleted.",
        (
            *_in(
                "faults",
                test_disk="test_a_slot_of_a_newer_version_is_left_alone_and_named_and_the_service_works",
            ),
            *_in(
                "unit/streaming/spool",
                test_damage="test_a_slot_of_a_newer_version_is_left_untouched "
                "test_files_that_it_does_not_know_stay_and_are_named",
                test_record_format="test_the_bytes_of_version_1_never_change",
            ),
        ),
        "The version is written into the file, and its bytes are the same afterwards.",
        "There is no older version yet.",
    ),
    Row(
        38,
        "A record that fails for ever.",
        "A dead letter after some tries; those behind it go on.",
        (
            *_in(
                "unit/services",
                test_spooling="TestRejected.test_a_record_that_fails_for_no_known_reason_is_given_up_after_five_tries_"
                "alone "
                "TestRejected.test_a_record_that_the_broker_refuses_while_it_drains_becomes_a_dead_letter_and_the_others_"
                "go_on",
            ),
            *_in(
                "faults",
                test_too_large="test_a_record_too_large_for_the_broker_that_comes_out_of_the_spool_holds_up_no_other",
            ),
        ),
        "The double answers each try with the same error; a real broker refuses the record whenever it comes.",
    ),
    Row(
        39,
        "The topic for dead letters is away, or a dead letter is too big for it.",
        "A queue of its own in the spool; the way of the others is unaffected.",
        (
            *_in(
                "faults",
                test_dead_letters="test_without_a_topic_for_dead_letters_they_wait_in_their_own_queue_and_hold_up_"
                "nobody "
                "test_a_dead_letter_that_its_topic_refuses_stays_in_the_spool_and_holds_up_no_other",
            ),
            *_in("unit/streaming/spool", test_spool="test_the_two_kinds_are_separate_queues"),
        ),
        "The cluster does not list the topic; the log says `dead_letter_rejected`.",
    ),
    Row(
        40,
        "The machine's clock jumps.",
        "Timers go on, ids are unique, order is kept.",
        (
            *_in(
                "faults",
                test_service="test_a_clock_that_jumps_changes_no_id_no_order_and_no_timer "
                "test_once_a_clock_that_was_hours_ahead_is_right_again_no_dead_letter_is_stuck",
            ),
            *_in("unit/libs", test_event_ids="test_ids_are_version_7_unique_and_rise_whatever_the_clock_does"),
            *_in("unit/streaming", test_rate_limiter="TestRateAndBurst.test_jumps_of_the_wall_clock_change_nothing"),
            *_in("unit/observability", test_health="test_a_jump_of_the_wall_clock_does_not_change_for_how_long"),
        ),
        "The clock that the service was given jumps four times, by up to 100 minutes.",
        "A clock given to the service, not the machine's. More than an hour ahead, brokers refuse records: events "
        "are dead letters then, kept in the spool until the clock is right.",
    ),
    Row(
        41,
        "The network is slow, lossy or half-open.",
        "Callers feel it, and memory is bounded.",
        _in(
            "faults",
            test_network="test_a_slow_network_presses_back_on_callers_and_times_nothing_out "
            "test_a_half_open_network_ends_in_the_spool_and_its_end_in_kafka "
            "test_a_connection_cut_again_and_again_loses_and_repeats_nothing",
        ),
        "The relay counts what it delayed, held and cut.",
    ),
    Row(
        42,
        "The registry is down, slow, answers hugely, or redirects.",
        "A known contract goes on; an unknown type is refused, never passed unchecked.",
        (
            *_in(
                "faults",
                test_service="test_a_registry_that_dies_stops_no_event_whose_contract_is_known_and_lets_no_other_pass",
            ),
            *_in(
                "kafka",
                test_registry_away="test_under_load_no_event_waits_none_is_lost_and_none_passes_unchecked "
                "test_a_service_starts_with_the_copies_while_the_registry_is_dead "
                "test_a_service_starts_with_the_copies_whatever_the_registry_does "
                "test_without_copies_the_lanes_are_closed_until_the_registry_answers",
                test_schema_registry_server="test_a_killed_registry_is_unavailable_and_what_was_asked_before_is_still_"
                "known "
                "test_a_frozen_registry_is_unavailable_in_time",
            ),
            *_in(
                "unit/schemas",
                test_schema_registry_client="TestRefusals.test_a_redirect_is_not_followed "
                "TestRefusals.test_a_lookup_answered_by_rubbish_is_an_error_in_time_and_never_an_id "
                "TestBounds.test_an_answer_of_more_than_four_mebibytes_is_cut_off "
                "TestBounds.test_an_answer_that_does_not_end_is_given_up_in_time",
            ),
        ),
        "The registry's process is gone or stopped; servers of the tests answer what no registry should.",
    ),
    Row(
        43,
        "A scrape hangs; names come without end.",
        "A scrape takes 50 ms; labels are bounded.",
        (
            *_in("faults", test_service="test_a_scrape_takes_little_time_while_events_are_spooled_and_drained"),
            *_in(
                "unit/observability",
                test_http_endpoint="TestBounds.test_a_hanging_scrape_does_not_hold_up_others",
                test_prometheus="test_a_scrape_is_bounded_however_many_names_come",
                test_metrics="TestLabels.test_beyond_the_cap_everything_is_counted_under_other",
            ),
        ),
        "One client sends half a request and waits; 20,000 names are recorded.",
    ),
)
