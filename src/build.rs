//! Lets the program find the prebuilt DuckDB library it was linked with, without environment variables.

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    if let Ok(folder) = std::env::var("DUCKDB_LIB_DIR") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
    // Where the driver puts a library that it fetched itself.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/deps");
    // Beside the program: how the container image and a release archive carry the library.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN");
}
