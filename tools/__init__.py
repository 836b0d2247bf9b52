"""What the development of this project needs beside its tests."""
