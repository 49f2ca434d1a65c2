"""The report: pictures and one self-contained HTML page. It reads artifacts and computes nothing that they do not hold."""
