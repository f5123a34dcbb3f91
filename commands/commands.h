// The commands of `smlp`, one file each. A command adds itself to the application with its help and an example,
// and does its work in its callback: an Error ends the program with its code, `exit_code` with another.
#pragma once

#include <CLI/CLI.hpp>

namespace smlp {

void add_run_command(CLI::App& app, int& exit_code);
void add_status_command(CLI::App& app);
void add_save_command(CLI::App& app);
void add_stop_command(CLI::App& app);
void add_dump_command(CLI::App& app);
void add_drill_command(CLI::App& app, int& exit_code);
void add_submit_command(CLI::App& app);
void add_logs_command(CLI::App& app);
void add_plan_command(CLI::App& app, int& exit_code);
void add_config_commands(CLI::App& app);
void add_data_commands(CLI::App& app);
void add_checkpoint_commands(CLI::App& app, int& exit_code);
void add_eval_command(CLI::App& app, int& exit_code);
void add_generate_command(CLI::App& app, int& exit_code);
void add_check_commands(CLI::App& app, int& exit_code);
void add_compare_command(CLI::App& app);
void add_bench_command(CLI::App& app, int& exit_code);
void add_guard_command(CLI::App& app, int& exit_code);
void add_doctor_command(CLI::App& app, int& exit_code);

}  // namespace smlp
