//! Writes the good inputs of each door into FOLDER/DOOR, for a fuzzer to begin with.
//! Usage: hostile-seeds FOLDER

use kiln_codegen_tests::hostile::DOORS;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "corpus".to_string());
    for door in DOORS {
        let folder = std::path::Path::new(&folder).join(door.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in (door.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
