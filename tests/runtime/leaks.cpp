// libomp keeps some of its own team records when the process ends; they are no leak of this project.
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp.so\n"; }
